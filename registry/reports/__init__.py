"""Reports on what is registered: two mappings side by side, and the audit of PEFT's entries on record."""
