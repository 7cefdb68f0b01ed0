"""Proposals: which layers each family of PEFT's methods adapts, by which names, at what cost.

Used by the scanner: ``propose_all`` (a ``Subject`` -> proposals), ``saved_heads``, ``is_adaptable`` and
``ADAPTABLE_KINDS``.
"""

from ...domain.selection import size_per_rank
from .families import Subject, propose_all
from .left_out import ADAPTABLE_KINDS
from .rules import is_adaptable
from .saved_heads import saved_heads

__all__ = ["ADAPTABLE_KINDS", "Subject", "is_adaptable", "propose_all", "saved_heads", "size_per_rank"]
