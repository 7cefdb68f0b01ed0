"""Assign roles from names, shapes and declared structure."""
