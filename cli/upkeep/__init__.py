"""Define the commands of whoever runs a registry: its database, its log, its copies and its mirrors."""
