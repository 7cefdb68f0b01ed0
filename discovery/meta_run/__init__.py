"""Run a model's forward on the meta device with inputs made for it."""
