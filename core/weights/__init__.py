"""weights read what is stored of a model beside its code: names, types and shapes, from headers; never a weight.

Others may import: ``read_weights`` (of a reference to a hub, a folder or a file), which gives ``Weights`` of
``StoredTensor``; ``read_tensors`` (of one file); ``unpack`` (the layers behind quantised tensors), which gives
``StoredLayer``; ``compare`` (with the layers of a model, each given as a ``Weight``), which gives a ``Fit``;
``HubStore`` (parts of files in a repo) and ``check_redirect`` (of a hub).
"""

from .comparison import Fit, Weight, compare
from .packed import StoredLayer, unpack
from .safetensors import StoredTensor
from .stored_weights import Weights, read_tensors, read_weights
from .stores import HubStore, check_redirect

__all__ = [
    "Fit",
    "HubStore",
    "StoredLayer",
    "StoredTensor",
    "Weight",
    "Weights",
    "check_redirect",
    "compare",
    "read_tensors",
    "read_weights",
    "unpack",
]
