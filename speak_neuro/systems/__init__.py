"""The systems that are compared, and the run folder that holds one."""
