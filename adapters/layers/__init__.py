"""The maths: LoRA and IA3 layers, and modules trained in full."""
