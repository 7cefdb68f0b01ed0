"""Targets for the configurations of the installed peft."""
