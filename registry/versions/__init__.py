"""Relate library versions: renames, ranges, and mappings stated in older names."""
