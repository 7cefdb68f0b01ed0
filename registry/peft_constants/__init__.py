"""Read and write PEFT's ``constants.py``, without importing it."""
