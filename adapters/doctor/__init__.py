"""doctor: examine a saved adapter beside the model it is for, by its configuration and header; write a mended copy.

Others may import: ``doctor``, which returns a ``Diagnosis`` of ``Finding`` records; ``convert``, to other formats.
"""

from ...weights.diagnoses import Diagnosis, Finding
from .conversion import convert
from .examination import doctor

__all__ = ["Diagnosis", "Finding", "convert", "doctor"]
