"""Upload an adapter to a hub with its model card, and download one."""
