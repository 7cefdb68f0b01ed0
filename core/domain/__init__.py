"""Define the frozen records and the vocabulary; this imports no torch, no SQL and no other folder of loradar."""
