"""core *offers*: loradar's public names, each loaded on first use, so that ``import loradar`` never imports torch."""
