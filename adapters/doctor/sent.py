"""Examine an adapter that was sent to the service: in a worker, without a file of this machine and without the hub."""

import json
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from ...domain.mappings import ArchitectureDetail
from ...errors import InvalidRequest, ScanFailed
from ...schema import dump_json
from .base import Base, build_base, describe_registered
from .examination import examine
from .stored import read_sent

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
    return dump_json(examine(stored, NAME, *_find_base(sent["model"], model, known, note)))


def _find_base(
    named: Any, model: Mapping[str, Any] | None, known: ArchitectureDetail | None, note: str
) -> tuple[Base | None, str]:
    if model is not None:
        reference = named if isinstance(named, str) else "the model of the config.json that was sent"
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
