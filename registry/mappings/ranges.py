"""Choose the revision of a source for a library version, and extend the range of versions it holds for."""

from collections.abc import Sequence
from dataclasses import replace

from ...domain.mappings import Mapping
from ...domain.targets import TargetSpec
from ...domain.versions import nearest, neighbours, newest


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


def nearest_seen(version: str | None, seen: Sequence[str]) -> str | None:
    """Return the scanned version nearest to ``version``; ``version`` itself if none was scanned."""
    return version if version is None or not seen or version in seen else nearest(version, seen)


def with_distance(mapping: Mapping, version: str | None, seen: Sequence[str]) -> Mapping:
    """Return the mapping with a reason that names the scanned versions, if ``version`` is not among them."""
    if version is None or not seen or (mapping.versions.hold(version) if mapping.versions else version in seen):
        return mapping
    closest, around = nearest(version, seen), neighbours(version, seen)
    if mapping.versions and version in seen:
        ends = dict.fromkeys((mapping.versions.since, mapping.versions.until))
        reason = f"seen at {' and '.join(ends)}, not at {version}"
    elif len(around) == 1:
        reason = f"seen at {closest}, the nearest to {version}"
    else:
        changed = ", where targets changed" if mapping.versions else ""
        reason = f"seen at {' and '.join(around)}; {version} lies between{changed}: this is as of {closest}"
    return replace(mapping, reasons=(reason, *mapping.reasons))
