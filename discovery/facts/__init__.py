"""Collect facts about a model's modules, without a verdict."""
