"""explaining: why a layer is a target or not, from stored slots or from a scan."""
