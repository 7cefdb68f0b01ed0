"""Connect loradar's targets to the installed peft."""
