"""Injection into a model: match, plan, apply."""
