"""Read the LoRA part of the configurations of training projects, with the lines it is on.

Nothing in here runs what it reads: YAML and JSON are composed without constructors, Python is parsed, shell is split.
Others may import: ``read_parts`` (a text -> ``LoraPart`` records), ``write_snippet`` (a part with other targets) and
the records of ``config_checks``.
"""

from .lora_part import LoraPart, Named, read_parts
from .snippets import write_snippet

__all__ = ["LoraPart", "Named", "read_parts", "write_snippet"]
