"""What every part stands on: commands, files, settings, tensors on disk, devices."""
