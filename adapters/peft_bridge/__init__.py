"""Use loradar's targets in the installed peft, and PEFT's functions on loradar's models."""
