"""Adapters on the Hugging Face hub: location, model card, download and upload."""
