"""Inject adapters into a model: match, plan, apply."""
