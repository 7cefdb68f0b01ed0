"""Versions of a library: how they compare, the ranges in which something was seen to hold, and what was renamed."""

from collections.abc import Iterable
from collections.abc import Mapping as Json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from packaging.version import Version


@lru_cache(maxsize=256)
def parse_version(text: str) -> "Version":
    """Return a version that compares as pip compares it (PEP 440).

    Raises:
        InvalidRequest: If it is none.
    """
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415 - 8 ms that most lookups can do without

    try:
        return Version(text)
    except InvalidVersion:
        message = f"Library version {text!r} is no version. Give one such as '5.23.0'."
        raise InvalidRequest(message, field="library_version", value=text) from None


@dataclass(frozen=True, slots=True)
class Versions:
    """A range of versions: those something was seen to hold at first and last, and all that lie between."""

    since: str
    until: str

    def hold(self, version: str) -> bool:
        """Tell whether a version lies in the range."""
        if version in (self.since, self.until):
            return True
        return parse_version(self.since) <= parse_version(version) <= parse_version(self.until)

    def extended(self, version: str) -> Self:
        """Return the range with its nearer end moved out to a version."""
        ends = sorted({self.since, self.until, version}, key=parse_version)
        return type(self)(ends[0], ends[-1])

    def to_dict(self) -> dict[str, str]:
        """Return the JSON form."""
        return {"since": self.since, "until": self.until}


@dataclass(frozen=True, slots=True)
class Rename:
    """What layers were called in one version and are called in a later one.

    A path that starts with ``old`` (whole segments, ``*`` is an index) starts with ``new`` instead; of several that
    fit the longest holds. Several ``old`` may become one ``new``, and one ``old`` several.

    Attributes:
        says: Why the two are taken for the same layers.
    """

    old: str
    new: str
    says: str


@dataclass(frozen=True, slots=True)
class VersionedRename:
    """A rename of one architecture, with the two versions that were compared."""

    from_version: str
    to_version: str
    rename: Rename

    def to_dict(self) -> dict[str, str]:
        """Return the JSON form."""
        return {
            "from_version": self.from_version,
            "to_version": self.to_version,
            "old": self.rename.old,
            "new": self.rename.new,
            "says": self.rename.says,
        }

    @classmethod
    def from_dict(cls, data: Json[str, Any]) -> Self:
        """Build a rename from its JSON form."""
        rename = Rename(data["old"], data["new"], data["says"])
        return cls(data["from_version"], data["to_version"], rename)


def newest(versions: Iterable[str]) -> str:
    """Return the newest of at least one version."""
    known = set(versions)
    return known.pop() if len(known) == 1 else max(known, key=parse_version)


def neighbours(version: str, known: Iterable[str]) -> list[str]:
    """Return the known versions next below and next above one; just the one it equals, if there is one."""
    wanted = parse_version(version)
    ordered = sorted(set(known), key=parse_version)
    equal = [one for one in ordered if parse_version(one) == wanted]
    below = [one for one in ordered if parse_version(one) < wanted]
    above = [one for one in ordered if parse_version(one) > wanted]
    return equal[:1] or [*below[-1:], *above[:1]]


def nearest(version: str, known: Iterable[str]) -> str:
    """Return the known version most like ``version``: of its two neighbours the one that differs in a later part.

    So 5.0.0 goes with 5.23.0 rather than with 4.57.1; if the same part differs, by less; the older of two as near.
    """
    return min(neighbours(version, known), key=lambda one: _distance(version, one))


def _distance(one: str, other: str) -> tuple[int, ...]:
    first, second = (parse_version(text) for text in (one, other))
    parts = ((first.major, second.major), (first.minor, second.minor), (first.micro, second.micro))
    return tuple(abs(a - b) for a, b in parts)
