"""Compare library versions, and describe version ranges and renamed layers."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Self

from ..errors import InvalidRequest
from ..schema import Config, schema_config

if TYPE_CHECKING:
    from packaging.version import Version


@lru_cache(maxsize=256)
def parse_version(text: str) -> "Version":
    """Return a version that compares as pip compares it (PEP 440).

    Raises:
        InvalidRequest: If the text is not a version.
    """
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415 - 8 ms that most lookups can do without

    try:
        return Version(text)
    except InvalidVersion:
        message = f"Invalid library version {text!r}: give one such as '5.24.0'."
        raise InvalidRequest(message, field="library_version", value=text) from None


@dataclass(frozen=True, slots=True)
class Versions:
    """A range of versions, both ends included."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    since: str
    until: str

    def hold(self, version: str) -> bool:
        """Return whether a version lies in the range."""
        if version in (self.since, self.until):
            return True
        return parse_version(self.since) <= parse_version(version) <= parse_version(self.until)

    def extended(self, version: str) -> Self:
        """Return the range with its nearer end moved out to a version."""
        ends = sorted({self.since, self.until, version}, key=parse_version)
        return type(self)(ends[0], ends[-1])


@dataclass(frozen=True, slots=True)
class Rename:
    """A rename of layers between two versions.

    A path that starts with ``old`` (whole segments, ``*`` is an index) starts with ``new`` in the later version; of
    several that fit the longest holds. Several ``old`` may become one ``new``, and one ``old`` several.
    """

    old: str
    new: str
    says: str
    """Why both paths are taken for the same layers."""


@dataclass(frozen=True, slots=True)
class VersionedRename:
    """A rename of layers between two library versions, as starts of paths."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    from_version: str
    to_version: str
    old: str
    new: str
    says: str
    """Why both paths are taken for the same layers."""

    @property
    def rename(self) -> Rename:
        """The rename without its versions."""
        return Rename(self.old, self.new, self.says)


def newest(versions: Iterable[str]) -> str:
    """Return the newest of at least one version."""
    known = set(versions)
    return known.pop() if len(known) == 1 else max(known, key=parse_version)


def neighbours(version: str, known: Iterable[str]) -> list[str]:
    """Return the known versions next below and next above a version, or the one that equals it."""
    target = parse_version(version)
    ordered = sorted(set(known), key=parse_version)
    equal = [candidate for candidate in ordered if parse_version(candidate) == target]
    below = [candidate for candidate in ordered if parse_version(candidate) < target]
    above = [candidate for candidate in ordered if parse_version(candidate) > target]
    return equal[:1] or [*below[-1:], *above[:1]]


def nearest(version: str, known: Iterable[str]) -> str:
    """Return the neighbour of a version that differs from it in the later part.

    So 5.0.0 is nearer to 5.23.0 than to 4.57.1; if both differ in the same part, the smaller difference counts, and of
    equal ones the older version.
    """
    return min(neighbours(version, known), key=lambda candidate: distance(version, candidate))


def distance(version: str, other: str) -> tuple[int, ...]:
    """Return the differences of two versions by part, the first part first: less is nearer."""
    one, two = parse_version(version), parse_version(other)
    return abs(one.major - two.major), abs(one.minor - two.minor), abs(one.micro - two.micro)
