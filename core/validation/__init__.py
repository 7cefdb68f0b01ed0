"""Validate text, JSON and statements that come from outside."""
