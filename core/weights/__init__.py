"""Read what is stored of a model beside its code: names, types and shapes, from headers; never a weight.

Others may import: ``read_weights`` (of a reference to a hub, a folder or a file), which gives ``Weights`` of
``StoredTensor``; ``read_tensors`` (of one file); ``read_length`` and ``parse_header`` (of the bytes of a header);
``read_gguf`` (of a file of llama.cpp), which gives a ``GgufHeader``, and ``check_size``;
``read_sent`` (of parts of files that were sent), which gives a ``SentModel``;
``unpack`` (the layers behind quantised tensors), which gives ``StoredLayer``; ``identify`` (the architecture that a
``config.json`` names); ``compare`` (with the layers of a model, each given as a ``Weight``), which gives a ``Fit``;
``HubStore`` (parts of files in a repo) and ``check_redirect`` (of a hub); ``read_store`` and ``read_json`` (of a store
whose files are listed already); ``place_of`` (names without numbers), ``Index`` (the file of each tensor), and the
names and endings of files.
"""

from .comparison import Fit, Weight, compare
from .gguf import GgufHeader, check_size, read_gguf
from .index import Index, place_of
from .packed import StoredLayer, unpack
from .safetensors import LENGTH_BYTES, StoredTensor, parse_header, read_length
from .sent_files import SentModel, read_sent
from .stored_weights import (
    ADAPTER_CONFIG,
    CONFIG,
    ENDING,
    INDEX_ENDING,
    PICKLED,
    Weights,
    identify,
    read_json,
    read_store,
    read_tensors,
    read_weights,
)
from .stores import HubStore, check_redirect

__all__ = [
    "ADAPTER_CONFIG",
    "CONFIG",
    "ENDING",
    "INDEX_ENDING",
    "LENGTH_BYTES",
    "PICKLED",
    "Fit",
    "GgufHeader",
    "HubStore",
    "Index",
    "SentModel",
    "StoredLayer",
    "StoredTensor",
    "Weight",
    "Weights",
    "check_redirect",
    "check_size",
    "compare",
    "identify",
    "parse_header",
    "place_of",
    "read_gguf",
    "read_json",
    "read_length",
    "read_sent",
    "read_store",
    "read_tensors",
    "read_weights",
    "unpack",
]
