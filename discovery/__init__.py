"""discovery *scans*: it turns an architecture nobody registered into layers, roles, slots and proposals.

Others may import: ``scan`` (a model or reference), ``scan_module`` (a live module), ``scan_named``, ``scan_each``
and ``scan_library`` (one architecture, some, or every one, of a library, within ``Bounds``, as a ``How`` says),
``list_architectures``, ``build`` (the model of a reference, on meta), ``identify`` and the layer facts ``walk``,
``list_layers``, ``kind_of``, ``CONV_KINDS``.
"""

from ..extras import require

require("scan", "torch")

from .catalog import How, scan_each, scan_library, scan_named
from .facts import identify
from .layers import CONV_KINDS, Site, kind_of, list_layers, walk
from .scanner import scan, scan_module
from .sources import build, quiet_libraries
from .sources import list_names as list_architectures
from .workers import Bounds

__all__ = [
    "CONV_KINDS",
    "Bounds",
    "How",
    "Site",
    "build",
    "identify",
    "kind_of",
    "list_architectures",
    "list_layers",
    "quiet_libraries",
    "scan",
    "scan_each",
    "scan_library",
    "scan_module",
    "scan_named",
    "walk",
]
