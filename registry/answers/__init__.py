"""Export the answers of a registry: as static files, and as the data of a package."""
