"""Save and load adapters in PEFT's file format."""
