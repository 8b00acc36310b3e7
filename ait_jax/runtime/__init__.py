"""Devices and disks: processes, meshes, files, buckets, live progress."""
