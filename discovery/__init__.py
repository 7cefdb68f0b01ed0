"""discovery *scans*: it turns an architecture nobody registered into layers, roles, slots and proposals.

Others may import: ``scan`` (a model or reference), ``scan_module`` (a live module), ``scan_named`` and
``scan_library`` (one architecture, or every one, of a library, within ``Bounds``), ``list_architectures``,
``identify``, the layer facts ``walk``, ``list_layers``, ``kind_of``, ``CONV_KINDS``, and how layers are named:
``name_targets`` and ``pattern_of``.
"""

from ..extras import require

require("scan", "torch")

from .catalog import scan_library, scan_named
from .facts import identify
from .layers import CONV_KINDS, Site, kind_of, list_layers, walk
from .patterns import name_targets
from .scanner import scan, scan_module
from .slots import pattern_of
from .sources import list_names as list_architectures
from .sources import quiet_libraries
from .workers import Bounds

__all__ = [
    "CONV_KINDS",
    "Bounds",
    "Site",
    "identify",
    "kind_of",
    "list_architectures",
    "list_layers",
    "name_targets",
    "pattern_of",
    "quiet_libraries",
    "scan",
    "scan_library",
    "scan_module",
    "scan_named",
    "walk",
]
