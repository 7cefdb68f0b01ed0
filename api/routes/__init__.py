"""Define the endpoints, one file per resource."""
