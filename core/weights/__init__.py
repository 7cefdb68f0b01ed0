"""weights read what is stored of a model beside its code: names, types and shapes, from headers; never a weight.

Others may import: ``read_weights`` (of a reference to a hub, a folder or a file), which gives ``Weights`` of
``StoredTensor``; ``unpack`` (the layers behind quantised tensors), which gives ``StoredLayer``; ``compare`` (with the
layers of a model, each given as a ``Weight``), which gives a ``Fit``.
"""

from .comparison import Fit, Weight, compare
from .packed import StoredLayer, unpack
from .safetensors import StoredTensor
from .stored_weights import Weights, read_weights

__all__ = ["Fit", "StoredLayer", "StoredTensor", "Weight", "Weights", "compare", "read_weights", "unpack"]
