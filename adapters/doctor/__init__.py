"""doctor: examine a saved adapter beside the model it is for, by its configuration and header; write a mended copy.

Others may import: ``doctor``, which returns a ``Diagnosis`` of ``Finding`` records.
"""

from ...domain.diagnoses import Diagnosis, Finding
from .examination import doctor

__all__ = ["Diagnosis", "Finding", "doctor"]
