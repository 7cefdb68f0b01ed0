"""weights read what is stored of a model beside its code: names, types and shapes, from headers; never a weight.

Others may import: ``read_weights`` (of a reference to a hub, a folder or a file), which gives ``Weights`` of
``StoredTensor``; ``read_tensors`` (of one file); ``read_length`` and ``parse_header`` (of the bytes of a header);
``unpack`` (the layers behind quantised tensors), which gives ``StoredLayer``; ``identify`` (the architecture that a
``config.json`` names); ``compare`` (with the layers of a model, each given as a ``Weight``), which gives a ``Fit``;
``HubStore`` (parts of files in a repo) and ``check_redirect`` (of a hub).
"""

from .comparison import Fit, Weight, compare
from .packed import StoredLayer, unpack
from .safetensors import LENGTH_BYTES, StoredTensor, parse_header, read_length
from .stored_weights import Weights, identify, read_tensors, read_weights
from .stores import HubStore, check_redirect

__all__ = [
    "LENGTH_BYTES",
    "Fit",
    "HubStore",
    "StoredLayer",
    "StoredTensor",
    "Weight",
    "Weights",
    "check_redirect",
    "compare",
    "identify",
    "parse_header",
    "read_length",
    "read_tensors",
    "read_weights",
    "unpack",
]
