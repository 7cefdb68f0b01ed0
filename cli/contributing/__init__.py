"""contributing: commands that send a mapping, show what was sent, and decide on it."""
