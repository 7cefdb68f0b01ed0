"""Proposals: the layers each family of PEFT's methods adapts, their names and their cost.

Others may import: ``propose_all`` (a ``Subject`` -> proposals), ``saved_heads``, ``is_adaptable`` and
``ADAPTABLE_KINDS``.
"""

from ...domain.selection import size_per_rank
from .families import Subject, propose_all
from .rules import ADAPTABLE_KINDS, is_adaptable, saved_heads

__all__ = ["ADAPTABLE_KINDS", "Subject", "is_adaptable", "propose_all", "saved_heads", "size_per_rank"]
