"""Compute LoRA, DoRA and IA3 layers, and modules trained in full."""
