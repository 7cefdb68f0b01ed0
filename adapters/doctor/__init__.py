"""Examine a saved adapter beside its model, by its configuration and header; write a mended or converted copy.

Others may import: ``doctor``, which returns a ``Diagnosis`` of ``Finding`` records; ``convert``, to other formats.
"""

from ...weights.diagnoses import Diagnosis, Finding
from .conversion import convert
from .examination import doctor

__all__ = ["Diagnosis", "Finding", "convert", "doctor"]
