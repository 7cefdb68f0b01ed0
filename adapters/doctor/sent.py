"""Examine an adapter that was sent to the service: in a worker, without a file of this machine and without the hub."""

import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...domain.mappings import ArchitectureDetail
from ...errors import InvalidRequest, ScanFailed
from ...schema import dump_json
from ...weights import GgufHeader, read_gguf
from ...weights.diagnoses import Diagnosis
from .base import Base, build_base, describe_registered
from .examination import examine
from .foreign import SENT, examine_foreign
from .gguf_adapter import examine_gguf
from .stored import StoredAdapter, read_sent

NAME = "adapter"


def examine_sent(
    sent: Mapping[str, Any], model: Mapping[str, Any] | None, known: ArchitectureDetail | None, note: str
) -> bytes:
    """Return the JSON of the diagnosis of an adapter.

    Args:
        sent: The fields of ``AdapterBody``.
        model: The content of the ``config.json`` of the base model, if it is known.
        known: The registered architecture of the base model, if there is one.
        note: What is not known of it, if it was not found.

    Raises:
        InvalidRequest: If neither a header nor a file was sent, or both.
        WeightsUnreadable: If the header is damaged.
        InvalidConfig: If two of its tensors are the same factor.
        ScanFailed: If no model builds from its configuration.
    """
    if (sent["header"] is None) == (sent["file"] is None):
        message = "An adapter is sent by 'header', the JSON at the start of its file, or by 'file': send one of them."
        raise InvalidRequest(message, field="body.header")
    try:
        content = None if sent["file"] is None else b64decode(sent["file"], validate=True)
    except ValueError as error:
        raise InvalidRequest(f"body.file is no Base64: {error}.", field="body.file") from None
    stored = read_sent(sent["config"], json.dumps(sent["header"]).encode(), content)
    if stored.format not in ("peft", "gguf"):
        return dump_json(_examine_foreign(stored, model))
    base, note = _find_base(sent["model"], model, known, note)
    if stored.format == "gguf":
        return dump_json(examine_gguf(_read_gguf(content or b""), NAME, base, note))
    return dump_json(examine(stored, NAME, base, note))


def _read_gguf(content: bytes) -> GgufHeader:
    return read_gguf(lambda start, length: content[start : start + length], NAME)


def _examine_foreign(stored: StoredAdapter, model: Mapping[str, Any] | None) -> Diagnosis:
    """Examine a file whose names are not PEFT's; a configuration alone has the layers that its names stand for."""
    if model is not None and stored.content is not None:
        return examine_foreign(stored, NAME, model)
    note = "only its format was told: send the whole 'file', and as 'model' the config.json of the model it adapts"
    return replace(examine_foreign(stored, NAME, None), note=note)


def _find_base(
    named: Any, model: Mapping[str, Any] | None, known: ArchitectureDetail | None, note: str
) -> tuple[Base | None, str]:
    if model is not None:
        reference = named if isinstance(named, str) else SENT
        try:
            base = build_base(model, reference, known.renames if known else ())
        except ScanFailed:
            if known is None:
                raise
            base = describe_registered(known, reference)
        return base, base.note
    if known is None:
        return None, note
    base = describe_registered(known, named if isinstance(named, str) else known.architecture.reference)
    return base, base.note
