"""Keep the database of the registry: its tables, transactions, audit log and first use."""

HEAD = "0013"
"""Newest revision in ``migrations/versions``; a test holds the two together."""
