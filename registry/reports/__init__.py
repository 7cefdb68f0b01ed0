"""Report on mappings: two side by side, the audit of PEFT's entries on record, and one scan apart from all others."""
