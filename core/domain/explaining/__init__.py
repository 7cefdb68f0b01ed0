"""Explain why a layer is a target or not, from stored slots or from a scan, and show the tree of modules around it."""
