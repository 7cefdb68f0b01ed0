"""Make the packaged catalog, and seed a registry from it and from PEFT's tables."""
