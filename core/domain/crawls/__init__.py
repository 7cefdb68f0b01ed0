"""Define the records of crawls: the content of each repository of a hub, and the usage of an architecture there."""
