"""Adapter folders in PEFT's file format: the format, and loading."""
