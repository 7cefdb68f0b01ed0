"""Copy a registry: write it as a snapshot, and load the snapshots of another one."""
