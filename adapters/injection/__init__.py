"""Match layers, plan and apply their adapters; combine adapters by weights."""
