"""Commands that submit, review, withdraw, yank and restore mappings."""
