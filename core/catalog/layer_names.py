"""Read and write the history of layer names: the releases of a library in which an architecture's names changed.

``data/versions/names-LIBRARY.jsonl`` starts with a line that lists the releases measured. Each architecture is a line
with (release, digest) pairs: the digest of its layers' path patterns and kinds, which holds from this release until
that of the next pair. ``null`` stands for names that are not known, because the architecture did not build; before its
first release an architecture did not exist.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib import resources
from typing import Any

from ..domain.versions import parse_version
from .lines import to_text

NamesByArchitecture = Mapping[str, str | None]

_DIGITS = 8
START = "names-"
"""How the names of these files start."""


@dataclass(frozen=True, slots=True)
class NameHistory:
    """The layer names of one architecture over the releases of its library."""

    releases: tuple[str, ...]
    """The releases measured, oldest first."""
    changes: tuple[tuple[str, str | None], ...]
    """Releases with a digest of the names from there on, oldest first."""

    def names_at(self, version: str) -> str | None:
        """Return the digest of the names at a version; ``None`` if they are not known.

        A version between two releases has known names if both have the same.
        """
        target = parse_version(version)
        below = [release for release in self.releases if parse_version(release) <= target]
        above = [release for release in self.releases if parse_version(release) >= target]
        if not below or not above:
            return None
        first, last = self._digest(below[-1]), self._digest(above[0])
        return first if first == last else None

    def _digest(self, release: str) -> str | None:
        target = parse_version(release)
        return next((digest for since, digest in reversed(self.changes) if parse_version(since) <= target), None)


def find_history(library: str, name: str) -> NameHistory | None:
    """Return the packaged history of an architecture, or ``None`` if there is none."""
    lines = _read_lines(library)
    start = to_text({"name": name})[:-1] + ","
    found = next((line for line in lines[1:] if line.startswith(start)), None)
    if found is None:
        return None
    changes = tuple((release, digest) for release, digest in json.loads(found)["names"])
    return NameHistory(tuple(json.loads(lines[0])["releases"]), changes)


@lru_cache
def _read_lines(library: str) -> list[str]:
    file = resources.files("loradar.data") / "versions" / f"{START}{library}.jsonl"
    return file.read_text("utf-8").splitlines() if file.is_file() else []


def digest_names(patterns: Iterable[tuple[str, str]]) -> str:
    """Return the digest of an architecture's layer names: the path pattern and kind of each."""
    named = sorted({f"{pattern} {kind}" for pattern, kind in patterns})
    return sha256("\n".join(named).encode()).hexdigest()[:_DIGITS]


def extend_history(
    lines: Sequence[str], older: NamesByArchitecture, newer: NamesByArchitecture, release: str
) -> list[str]:
    """Return the lines of a history with one more release, the one after the last.

    A name has a new pair only where a scan of the last release and one of the new show other names: measured digests
    are compared with measured ones, and scanned ones with scanned ones.

    Args:
        lines: The history so far.
        older: The digest of each architecture scanned in its last release.
        newer: The same of the new release; ``None`` for an architecture without a scan.
        release: The new release.
    """
    first, *rest = map(json.loads, lines)
    known = {line["name"]: line["names"] for line in rest}
    for name, digest in newer.items():
        if name not in older or digest != older[name]:
            known.setdefault(name, []).append((release, digest))
    extended = first | {"releases": [*first["releases"], release]}
    return [to_text(extended), *(to_text({"name": name, "names": known[name]}) for name in sorted(known))]


def history_lines(library: str, measured: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a history file, without line ends.

    Args:
        library: The library.
        measured: For each release: ``release``, the names ``known``, and the digests of the ``names`` measured. A name
            not measured at a release has there what it has at the measured releases around, if these agree.
    """
    measured = sorted(measured, key=lambda one: parse_version(one["release"]))
    yield to_text({"library": library, "releases": [one["release"] for one in measured]})
    for name in sorted({name for one in measured for name in one["known"]}):
        yield to_text({"name": name, "names": [*_list_changes(name, measured)]})


def _list_changes(name: str, measured: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str | None]]:
    """Yield the releases with other names than the one before."""
    known = [(one["release"], one["names"].get(name, "")) for one in measured if name in one["known"]]
    previous: str | None = ""
    for position, (release, own) in enumerate(known):
        digest = own if own != "" else _infer(known, position)
        if digest != previous:
            yield release, digest
        previous = digest


def _infer(known: Sequence[tuple[str, str | None]], position: int) -> str | None:
    """Return the digest of an unmeasured release if the measured ones around it have the same; ``None`` otherwise."""
    before = next((digest for _, digest in reversed(known[:position]) if digest != ""), None)
    after = next((digest for _, digest in known[position + 1 :] if digest != ""), None)
    return before if before == after else None
