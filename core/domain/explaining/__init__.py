"""explaining: why a layer is a target or not, from stored slots or from a scan, and the tree of modules around it."""
