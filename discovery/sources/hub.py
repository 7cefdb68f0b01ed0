"""hub: fetch the ``config.json`` of a repo from the configured endpoint; nothing else of it is read or run."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from ...errors import HubFailed, InvalidReference
from ...extras import require
from ...hub_errors import translate_errors
from ...references import Reference

CONFIG = "config.json"
MOST_BYTES = 1 << 20
"""Largest size of a configuration."""

MOST_REDIRECTS = 5
_PORTS = {"http": 80, "https": 443}


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
            return _parse(_stream(api, reference), reference)
        if not constants.HF_HUB_OFFLINE:  # offline, only the cache knows the size
            url = hf_hub_url(reference.name, CONFIG, revision=reference.tag, endpoint=api.endpoint)
            stated = get_hf_file_metadata(url, token=api.token)
            _check_origin(urljoin(url, stated.location), api.endpoint, reference)
            _check_size(stated.size or 0, reference)
        path = Path(api.hf_hub_download(reference.name, CONFIG, revision=reference.tag))
    _check_size(path.stat().st_size, reference)
    return _parse(path.read_bytes(), reference)


def _stream(api: Any, reference: Reference) -> bytes:
    """Return the file as the endpoint sends it, without a token and without writing to the cache."""
    from huggingface_hub import constants, get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]  # documented

    url = hf_hub_url(reference.name, CONFIG, revision=reference.tag, endpoint=api.endpoint)
    headers = build_hf_headers(token=False) | {"Accept-Encoding": "identity"}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    for _ in range(MOST_REDIRECTS + 1):
        with get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=False) as response:
            if not response.has_redirect_location:
                hf_raise_for_status(response)
                content = bytearray()
                for part in response.iter_raw():
                    content += part
                    _check_size(len(content), reference)
                return bytes(content)
        url = urljoin(url, response.headers["Location"])
        _check_origin(url, api.endpoint, reference)
    message = f"{reference} is redirected more than {MOST_REDIRECTS} times by {api.endpoint}. Check HF_ENDPOINT."
    raise HubFailed(message, reference=str(reference), endpoint=api.endpoint)


def _check_origin(url: str, endpoint: str, reference: Reference) -> None:
    """Check that a redirect stays on the endpoint: its scheme, host and port."""
    if _origin(url) != _origin(endpoint):
        message = f"{reference} is redirected away from {endpoint}, which is not followed. Check HF_ENDPOINT."
        raise HubFailed(message, reference=str(reference), endpoint=endpoint)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    try:
        return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:  # a port that is no number
        return parts.scheme, None, None


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


def explain_missing(name: str) -> str:
    """Return the error for a repo without a file, in words."""
    return f"holds no {name}: transformers cannot load it either. Give a repo that has one."


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
