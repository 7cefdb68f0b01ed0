"""Compare the LoRA part of a training configuration with the layers of its model, as the registry has them.

Others may import: ``check`` (a file) and ``check_text`` (a text from elsewhere, whose regexes are matched with RE2).
"""

from .checker import check, check_text

__all__ = ["check", "check_text"]
