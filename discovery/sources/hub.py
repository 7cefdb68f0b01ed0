"""hub: the ``config.json`` of a repo, from the configured endpoint; nothing else of the repo is read, or ever run."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import HubFailed, InvalidReference
from ...extras import require
from ...hub_errors import in_words
from ...references import Reference

CONFIG = "config.json"
MOST_BYTES = 1 << 20
"""A configuration of more is none."""


def fetch_config(reference: Reference, *, for_others: bool = False) -> dict[str, Any]:
    """Return the configuration of a repo.

    ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_OFFLINE`` and ``HF_HOME`` hold, as in every use of the hub.

    Args:
        reference: ``hub:org/repo``, with ``@revision`` if need be.
        for_others: Whether somebody else asks, who must not see what only this account may.

    Raises:
        InvalidReference: If it names no repo.
        HubFailed: If there is no such repo, revision or file, no access, no connection, or the file is too large.
        MissingExtra: If huggingface_hub is not installed.
    """
    require("scan", "huggingface_hub")
    from huggingface_hub import HfApi

    if "/" not in reference.name:
        message = f"{str(reference)!r} names no repo. Write it as in 'hub:org/repo', with '@revision' if need be."
        raise InvalidReference(message, reference=str(reference))
    api = HfApi(token=False if for_others else None)
    with in_words(api.endpoint, str(reference), reference.name, _missing):
        _check_size(_size_of(api, reference), reference)
        path = Path(api.hf_hub_download(reference.name, CONFIG, revision=reference.tag))
    _check_size(path.stat().st_size, reference)
    return _read(path, reference)


def _size_of(api: Any, reference: Reference) -> int:
    """Return the size of the file as the hub tells it; of what is in the cache, offline, that is asked later."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        return 0
    url = hf_hub_url(reference.name, CONFIG, revision=reference.tag, endpoint=api.endpoint)
    return get_hf_file_metadata(url, token=api.token).size or 0


def _check_size(size: int, reference: Reference) -> None:
    if size > MOST_BYTES:
        message = f"{reference} has a {CONFIG} of {size} bytes, more than {MOST_BYTES}: that is no configuration."
        raise HubFailed(message, reference=str(reference), size=size, limit=MOST_BYTES)


def _read(path: Path, reference: Reference) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        found = error
    if not isinstance(found, dict):
        message = f"{reference} has a {CONFIG} that is no JSON object. Scan a repo that transformers can load."
        raise HubFailed(message, reference=str(reference))
    return found


def _missing(name: str) -> str:
    return f"holds no {name}: transformers cannot load it either. Give a repo that has one."


@contextmanager
def offline() -> Iterator[None]:
    """Keep whatever is built inside from asking the hub for anything: a configuration may name other repos."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
