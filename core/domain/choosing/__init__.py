"""Choose the layers to adapt by preset, towers, roles and blocks, and their ranks by a budget."""
