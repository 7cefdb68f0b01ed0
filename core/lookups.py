"""Look up targets through the service of ``LORADAR_URL``, and in the local registry where that has no answer.

Only what is needed is imported: without a URL, no client of HTTP.
"""

import atexit
import os
import time
from collections.abc import Callable, Iterator
from collections.abc import Mapping as Values
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from .domain.mappings import ArchitectureDetail, Mapping
from .errors import (
    DatabaseUnusable,
    InvalidRequest,
    LoradarError,
    NotRegistered,
    ServiceUnreachable,
    TooManyRequests,
    UnknownArchitecture,
)
from .references import describe
from .registry import lookup as look_up_locally
from .settings import URL_VARIABLE, Settings
from .warn import warn

if TYPE_CHECKING:
    from .client import Client
    from .registry import Registry

T = TypeVar("T")

SILENCE = 30.0
"""Seconds for which a service that failed is not asked again by this process."""


def lookup(  # noqa: PLR0913, PLR0917 - what identifies a mapping
    name: str,
    peft_type: str = "LORA",
    preset: str | None = None,
    library: str | None = None,
    library_version: str | None = None,
    parts: Values[str, str] | None = None,
    **choice: Any,
) -> Mapping:
    """Look up the mapping of an architecture in the user's registry, or in the packaged one until that is made.

    With ``LORADAR_URL`` the service there is asked, or the static files; the registry on this machine answers, with a
    warning, if it cannot be reached or has no answer.

    ``name`` may be in any spelling (``timm:resnet50``, ``LlamaForCausalLM``, ``Qwen/Qwen3-8B``, ``sdxl``),
    or a folder or configuration file on this machine;
    ``understood`` of the result tells how it was read, and whether that is a guess. With ``library``, only names of
    that library count.
    Without ``preset`` it is that of ``LORADAR_PRESET``, else ``default``. ``parts`` gives the types of models in a
    composite architecture, such as ``{"text": "t5"}``.
    ``choice`` may have ``towers``, ``roles``, ``blocks``, ``rank``, ``expert_rank`` and ``budget``, as in
    ``Scan.propose``: the targets are computed from stored slots.

    Raises:
        InvalidRequest: If ``library_version`` is no version, or a part cannot be chosen.
        UnknownName: If the architecture has no part or tower of a name.
        UnknownPeftType: If PEFT has no such method.
        UnknownPreset: If there is no such preset.
        InvalidReference: If a folder or file has no configuration that can be read.
        NotRegistered: If nothing is registered; the message lists near names, and a command that works.
        DatabaseUnusable: If the registry's database cannot be used.
    """
    query = (name, peft_type, preset, library, library_version, parts)
    url = os.environ.get(URL_VARIABLE) and Settings.from_environment().url
    if not url:
        return look_up_locally(*query, **choice)
    if name.startswith(("file:", ".", "~")) or "/" in name:
        from .references.local import find_configuration  # noqa: PLC0415 - reads files

        local = find_configuration(name)
        if local:
            found = lookup(local.reference, *query[1:], **choice)
            return replace(found, understood=describe(name, local, ()))
    return _ask(url, name, lambda client: client.targets(*query, **choice), lambda: look_up_locally(*query, **choice))


class Knowledge:
    """Lookups by the service of ``LORADAR_URL``, or else by the local registry.

    Args:
        registry: The local registry.
        url: URL of the service; ``None`` for none.
    """

    def __init__(self, registry: "Registry", url: str | None) -> None:
        self._registry = registry
        self._url = url
        self.find_by_fingerprint = registry.find_by_fingerprint
        self.list_by_structure = registry.list_by_structure

    def find(self, name: str, peft_type: str, preset: str, library: str, library_version: str | None) -> Mapping | None:
        """Return the mapping of an architecture by its exact name, or ``None`` if none is known to hold."""

        def ask(client: "Client") -> Mapping:
            found = client.targets(f"{library}:{name}", peft_type, preset, None, library_version)
            if (found.library, found.name) != (library, name):  # understood as another one
                raise NotRegistered(name, (), f"There is no {library}:{name}.")
            return found

        def find() -> Mapping:
            found = self._registry.find(name, peft_type, preset, library, library_version)
            if found is None:
                raise NotRegistered(name, (), f"There is no {library}:{name}.")
            return found

        try:
            return _ask(self._url, f"{library}:{name}", ask, find) if self._url else find()
        except NotRegistered:
            return None

    def get_architecture(self, library: str, name: str) -> ArchitectureDetail:
        """Return everything known about an architecture.

        Raises:
            UnknownArchitecture: If nothing is.
        """

        def get() -> ArchitectureDetail:
            return self._registry.get_architecture(library, name)

        if self._url is None:
            return get()
        return _ask(self._url, f"{library}:{name}", lambda client: client.architecture(library, name), get)


@contextmanager
def open_knowledge(settings: Settings | None = None) -> Iterator[Knowledge]:
    """Open the local registry and the service of ``LORADAR_URL``.

    Raises:
        DatabaseUnusable: If the database of the local registry cannot be used.
    """
    from .registry import Registry  # noqa: PLC0415 - SQLAlchemy, 0.3 s

    settings = settings or Settings.from_environment()
    with Registry.open(settings) as registry:
        yield Knowledge(registry, settings.url)


# Services

_clients: dict[tuple[str, str], "Client"] = {}
_silent_until: dict[str, float] = {}
_warned: set[tuple[str, str]] = set()


def _ask(url: str, name: str, ask: "Callable[[Client], T]", look_up: Callable[[], T]) -> T:
    """Return the answer of a service, or else that of the local registry, with a warning: one for each reason."""
    if time.monotonic() < _silent_until.get(url, 0.0):
        return look_up()
    try:
        return ask(_connect(url))
    except (ServiceUnreachable, TooManyRequests, DatabaseUnusable) as error:
        _silent_until[url] = time.monotonic() + SILENCE
        found = look_up()
        reason = error.details.get("reason", error.message)
        _warn_once(url, "away", f"The registry on this machine answers instead of {url}: {reason}.".replace("..", "."))
    except (NotRegistered, UnknownArchitecture, InvalidRequest) as error:
        found = _find_here(error, look_up)
        _warn_once(url, name, f"The registry on this machine answers for {name!r} instead of {url}: {error.message}")
    return found


def _find_here(error: LoradarError, look_up: Callable[[], T]) -> T:
    """Return the answer of the local registry, or raise the error of the service."""
    if isinstance(error, InvalidRequest) and not error.details.get("static"):
        raise error
    try:
        return look_up()
    except (NotRegistered, UnknownArchitecture):
        raise error from None


def _connect(url: str) -> "Client":
    """Return the client for a service; each folder of files has one, which is closed at the end of the process."""
    from .client import Client  # noqa: PLC0415 - 0.1 s

    key = url, os.environ.get("LORADAR_HOME", "")
    if key not in _clients:
        _clients[key] = Client(url, revalidate=False)
    return _clients[key]


def forget_services() -> None:
    """Close the clients of this process, and forget failed services and past warnings."""
    for client in _clients.values():
        client.close()
    for known in (_clients, _silent_until, _warned):
        known.clear()


atexit.register(forget_services)


def _warn_once(url: str, reason: str, message: str) -> None:
    if (url, reason) not in _warned:
        _warned.add((url, reason))
        warn(message)
