"""Seed a registry from the packaged catalog and PEFT's tables."""
