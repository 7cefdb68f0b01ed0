"""Frozen records and vocabulary; imports no torch, no SQL and no other folder of loradar."""
