"""Define the commands that send a mapping, show submissions, and decide on them."""
