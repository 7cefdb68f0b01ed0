"""hub: fetch the ``config.json`` of a repo from the configured endpoint; nothing else of it is read or run."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from ...errors import HubFailed, InvalidReference
from ...extras import require
from ...hub_errors import explain_missing, translate_errors
from ...references import HubFolder, Reference
from ...weights import HubStore, check_redirect

CONFIG = "config.json"
MOST_BYTES = 1 << 20
"""Largest size of a configuration."""


def fetch_config(reference: Reference, *, for_others: bool = False) -> dict[str, Any]:
    """Return the configuration of a repo.

    ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_OFFLINE`` and ``HF_HOME`` apply, as in every use of the hub. Redirects are
    followed within the origin of the endpoint alone.

    Args:
        reference: ``hub:org/repo``, with ``@revision`` if needed.
        for_others: Whether another person requests it: then no token is sent, and nothing is written to the cache.

    Raises:
        InvalidReference: If it names no repo.
        HubFailed: If there is no such repo, revision or file, no access, no connection, or the file is too large.
        MissingExtra: If huggingface_hub is not installed.
    """
    require("scan", "huggingface_hub")
    from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url

    if "/" not in reference.name:
        message = f"{str(reference)!r} names no repo. Write it as in 'hub:org/repo', with '@revision' if need be."
        raise InvalidReference(message, reference=str(reference))
    api = HfApi(token=False if for_others else None)
    with translate_errors(api.endpoint, str(reference), reference.name, explain_missing):
        if for_others and not constants.HF_HUB_OFFLINE:
            store = HubStore(HubFolder.parse(str(reference)), is_anonymous=True)
            content, size = store.read(CONFIG, 0, MOST_BYTES + 1)
            _check_size(max(len(content), size or 0), reference)
            return _parse(content, reference)
        if not constants.HF_HUB_OFFLINE:  # offline, only the cache knows the size
            url = hf_hub_url(reference.name, CONFIG, revision=reference.tag, endpoint=api.endpoint)
            stated = get_hf_file_metadata(url, token=api.token)
            check_redirect(urljoin(url, stated.location), api.endpoint, str(reference), is_own_port=True)
            _check_size(stated.size or 0, reference)
        path = Path(api.hf_hub_download(reference.name, CONFIG, revision=reference.tag))
    _check_size(path.stat().st_size, reference)
    return _parse(path.read_bytes(), reference)


def _check_size(size: int, reference: Reference) -> None:
    if size > MOST_BYTES:
        message = f"{reference} has a {CONFIG} of {size} bytes, more than {MOST_BYTES}: that is no configuration."
        raise HubFailed(message, reference=str(reference), size=size, limit=MOST_BYTES)


def _parse(content: bytes, reference: Reference) -> dict[str, Any]:
    try:
        config = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        message = f"{reference} has a {CONFIG} that is no JSON object. Scan a repo that transformers can load."
        raise HubFailed(message, reference=str(reference))
    return config


@contextmanager
def offline() -> Iterator[None]:
    """Keep builds inside this context from requests to the hub: a configuration may name other repos."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
