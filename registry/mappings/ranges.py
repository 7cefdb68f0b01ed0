"""Choose the revision of a source for a library version, and extend the range of versions it holds for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...catalog.layer_names import NameHistory
from ...domain.mappings import Mapping
from ...domain.targets import TargetSpec
from ...domain.versions import distance, nearest, neighbours, newest, parse_version


def find_valid(revisions: Sequence[Mapping], version: str | None) -> Mapping | None:
    """Return the latest revision whose range contains a version, or ``None``.

    A revision without a range holds for any version. Without a version, the newest end of any range counts.
    """
    ends = _ends(revisions)
    version = version or (newest(ends) if ends else None)
    valid = (one for one in revisions if one.versions is None or version is None or one.versions.hold(version))
    return max(valid, key=lambda mapping: mapping.revision, default=None)


def choose_revision(revisions: Sequence[Mapping], version: str | None) -> Mapping:
    """Return the revision that holds for a version, or else the one at the nearest scanned version."""
    valid = find_valid(revisions, version)
    if valid is None and version is not None:
        valid = find_valid(revisions, nearest(version, _ends(revisions)))
    return valid or max(revisions, key=lambda mapping: mapping.revision)


def find_unchanged(revisions: Sequence[Mapping], spec: TargetSpec, version: str | None) -> Mapping | None:
    """Return the revision with ``spec`` for a version just scanned, its range extended to the version if necessary.

    A range is extended between two versions scanned one after the other, never across a version with another spec.
    The result is ``None`` if a new revision is required.
    """
    valid = find_valid(revisions, version) if revisions else None
    if valid is not None or version is None or not revisions:
        return valid if valid and valid.spec == spec else None
    adjacent = (find_valid(revisions, neighbour) for neighbour in neighbours(version, _ends(revisions)))
    same = next((one for one in adjacent if one and one.spec == spec), None)
    return replace(same, versions=same.versions.extended(version)) if same and same.versions else None


def _ends(revisions: Sequence[Mapping]) -> set[str]:
    ranges = (mapping.versions for mapping in revisions if mapping.versions)
    return {end for versions in ranges for end in (versions.since, versions.until)}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a requested version stands among the scanned ones.

    Attributes:
        version: The requested version; ``None`` if none was.
        seen: The scanned versions.
        alike: Those known to have the same layer names as the requested one, the nearest first.
        is_renamed: Whether the layer names at the requested version are known to be others than at any scanned one.
    """

    version: str | None
    seen: tuple[str, ...] = ()
    alike: tuple[str, ...] = ()
    is_renamed: bool = False

    def list_candidates(self) -> list[tuple[str | None, ...]]:
        """Return groups of scanned versions that can answer, the best first; the versions of a group must agree.

        The neighbours of a version whose names are not known agree if nothing changed between them.
        """
        if self.version is None or not self.seen:
            return [(self.version,)]
        if self.version in self.seen:
            return [(self.version,), *((other,) for other in self.alike if other != self.version)]
        if self.alike:
            return [(other,) for other in self.alike]
        around = neighbours(self.version, self.seen)
        if len(around) == 1 and self.is_renamed:
            return []
        first = nearest(self.version, around)
        return [(first, *(other for other in around if other != first))]

    def is_known(self, mapping: Mapping, answered: str | None) -> bool:
        """Return whether a mapping was seen at the scanned version that answers, or at one with the same names."""
        versions = mapping.versions
        if versions is None or answered is None or versions.hold(answered):
            return True
        return versions.since in self.alike or versions.until in self.alike


def locate(version: str | None, seen: Sequence[str], history: NameHistory | None) -> Place:
    """Return the place of a requested version among the scanned ones, by the packaged history of layer names."""
    if version is None or not seen:
        return Place(version)
    own: str = version
    if own not in seen:
        equal = [other for other in seen if parse_version(other) == parse_version(own)]
        own = equal[0] if equal else own
    names = history.names_at(own) if history else None
    if names is None or history is None:
        return Place(own, tuple(seen))
    alike = [other for other in seen if history.names_at(other) == names]
    ordered = sorted(alike, key=lambda other: distance(own, other))
    return Place(own, tuple(seen), tuple(ordered), is_renamed=not alike)


def with_distance(mapping: Mapping, place: Place, answered: str | None) -> Mapping:
    """Return the mapping with a reason that names the scanned versions, if the requested one is not among them.

    Args:
        mapping: The mapping as of the scanned version.
        place: The place of the requested version.
        answered: The scanned version.
    """
    version, seen = place.version, place.seen
    if version is None or not seen or (mapping.versions.hold(version) if mapping.versions else version in seen):
        return mapping
    around = neighbours(version, seen)
    if answered in place.alike and answered != version:
        reason = f"seen at {answered}; the layers have the same names at {version}"
    elif mapping.versions and version in seen:
        ends = dict.fromkeys((mapping.versions.since, mapping.versions.until))
        reason = f"seen at {' and '.join(ends)}, not at {version}"
    elif len(around) == 1:
        reason = f"seen at {answered}, the nearest to {version}"
    else:
        reason = f"seen at {' and '.join(around)}; {version} lies between: this is as of {answered}"
    return replace(mapping, reasons=(reason, *mapping.reasons))
