"""Relate library versions: ranges of revisions, renames of layers, and mappings stated in older names."""
