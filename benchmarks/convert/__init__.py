"""`hpcbinder convert` against `apptainer build` and mksquashfs; see `__main__`."""
