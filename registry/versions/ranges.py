"""Which revision of one source holds for a library version, and how far a range reaches after another scan."""

from collections.abc import Sequence
from dataclasses import replace

from ...domain.mappings import Mapping
from ...domain.targets import TargetSpec
from ...domain.versions import Versions, nearest, neighbours, newest


def holding(revisions: Sequence[Mapping], version: str | None) -> Mapping | None:
    """Return the latest revision that holds for a version, or ``None`` if none does.

    One without a range holds for any version. Without a version, the newest that any of them was seen at counts.
    """
    ends = _ends(revisions)
    version = version or (newest(ends) if ends else None)
    held = (one for one in revisions if one.versions is None or version is None or one.versions.hold(version))
    return max(held, key=lambda mapping: mapping.revision, default=None)


def standing(revisions: Sequence[Mapping], version: str | None) -> Mapping:
    """Return the revision to go by for a version: the one that holds, else the one at the nearest version seen."""
    held = holding(revisions, version)
    if held is None and version is not None:
        held = holding(revisions, nearest(version, _ends(revisions)))
    return held or max(revisions, key=lambda mapping: mapping.revision)


def reaching(revisions: Sequence[Mapping], spec: TargetSpec, version: str | None) -> Mapping | None:
    """Return the revision that says ``spec`` for a version just seen, with its range extended to it if need be.

    A range is extended over what lies between two versions seen one after the other, never over a version at which
    another spec was seen; ``None`` if a revision of its own has to say it.
    """
    held = holding(revisions, version) if revisions else None
    if held is not None or version is None or not revisions:
        return held if held and held.spec == spec else None
    seen = (holding(revisions, one) for one in neighbours(version, _ends(revisions)))
    same = next((one for one in seen if one and one.spec == spec), None)
    return replace(same, versions=same.versions.extended(version)) if same and same.versions else None


def first_range(version: str | None) -> Versions | None:
    """Return the range of what one scan saw."""
    return Versions(version, version) if version else None


def _ends(revisions: Sequence[Mapping]) -> set[str]:
    ranges = (mapping.versions for mapping in revisions if mapping.versions)
    return {end for versions in ranges for end in (versions.since, versions.until)}


def nearest_seen(asked: str | None, seen: Sequence[str]) -> str | None:
    """Return the version seen that is nearest to the one asked for; the latter itself if nothing was ever seen."""
    return asked if asked is None or not seen or asked in seen else nearest(asked, seen)


def with_distance(mapping: Mapping, asked: str | None, seen: Sequence[str]) -> Mapping:
    """Return the mapping with a reason that says how far what was seen is from what was asked for, if it is."""
    if asked is None or not seen or (mapping.versions.hold(asked) if mapping.versions else asked in seen):
        return mapping
    at, around = nearest(asked, seen), neighbours(asked, seen)
    if mapping.versions and asked in seen:
        ends = dict.fromkeys((mapping.versions.since, mapping.versions.until))
        says = f"seen at {' and '.join(ends)}, not at {asked}"
    elif len(around) == 1:
        says = f"seen at {at}, the nearest to {asked}"
    else:
        changed = ", where targets changed" if mapping.versions else ""
        says = f"seen at {' and '.join(around)}; {asked} lies between{changed}: this is as of {at}"
    return replace(mapping, reasons=(says, *mapping.reasons))
