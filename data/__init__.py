"""Facts in files: PEFT's constants, the lexicon and the order of task classes; README.md says where each is from."""
