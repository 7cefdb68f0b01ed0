"""Collect facts about a model's modules; no verdicts."""
