"""Records of crawls: the content of each repo of a hub, and the usage of an architecture there."""
