"""Run the command line as ``python -m loradar.cli``."""

from . import main

main()
