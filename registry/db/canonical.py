"""Canonical JSON and the hash that identifies a mapping revision."""

import json
from hashlib import sha256
from typing import Any, NamedTuple

from ...domain.schema import to_json
from ...domain.targets import TargetSpec

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def canonical(value: Any) -> str:
    """Return the one JSON text of a value: keys sorted, no spaces, ASCII only."""
    return _ENCODER.encode(value)


class Question(NamedTuple):
    """What a mapping answers."""

    library: str
    name: str
    peft_type: str
    preset: str


def mapping_id(question: Question, source_kind: str, revision: int, spec: TargetSpec) -> str:
    """Return ``sha256:`` and the digest of everything that makes a mapping revision what it is."""
    identity = {
        "architecture": {"library": question.library, "name": question.name},
        "peft_type": question.peft_type,
        "preset": question.preset,
        "source": source_kind,
        "revision": revision,
        "spec": to_json(spec),
    }
    return "sha256:" + sha256(canonical(identity).encode()).hexdigest()
