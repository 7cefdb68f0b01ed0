"""Records of what was compared and measured: two architectures, PEFT's entries, and placements in training."""
