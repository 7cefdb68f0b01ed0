"""Records of crawls: what was found in each repo of a hub, and how much an architecture is used there."""
