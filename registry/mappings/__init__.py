"""Store, look up, list and compare mappings."""
