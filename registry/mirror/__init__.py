"""Export the whole registry for mirrors."""
