"""Define the records of comparisons and measurements: two architectures, PEFT's entries, and placements in training."""
