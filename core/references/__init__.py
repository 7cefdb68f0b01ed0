"""Parse references, and find the architectures that a text in any spelling may stand for, best first.

``Reference.parse`` reads what is written exactly, ``resolver.resolve`` what people write: model types, classes,
checkpoints, nicknames and typing errors. Nothing here asks the network or imports a library of models. ``resolve`` is
imported from ``resolver`` where it is needed: an exact reference, which is the most frequent, does without its 10 ms.
"""

from .grammar import (
    LIBRARIES,
    MAX_REVISION_LENGTH,
    SCHEMES,
    HubFolder,
    Reference,
    Scheme,
    check_hub_name,
    explain_invalid_path,
    explain_invalid_repo,
    parse_parts,
)
from .understood import Understood, describe

__all__ = [
    "LIBRARIES",
    "MAX_REVISION_LENGTH",
    "SCHEMES",
    "HubFolder",
    "Reference",
    "Scheme",
    "Understood",
    "check_hub_name",
    "describe",
    "explain_invalid_path",
    "explain_invalid_repo",
    "parse_parts",
]
