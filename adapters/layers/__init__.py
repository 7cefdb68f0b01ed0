"""Define the adapter layers: LoRA, IA3, and modules trained in full."""
