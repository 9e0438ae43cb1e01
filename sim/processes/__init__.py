"""Lava processes, each in a directory of its own.

Lava's compiler executes every module that lies beside a process it compiles, so these directories hold one module each
and nothing that acts on import.
"""
