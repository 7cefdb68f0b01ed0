"""Share adapters on the Hugging Face hub."""
