"""Narrow settings: every width divided by one factor, so that what divides or adds up goes on doing so."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from math import gcd
from typing import Any

from .config_tree import Path, Section, each_number, list_numbers
from .terms import meaning_of

FACTORS = (64, 48, 40, 32, 24, 20, 18, 16, 14, 12, 10, 9, 8, 7, 6, 5, 4, 3, 2)
"""What widths are divided by, if it suits them."""
NARROW = 16
"""Widths up to this are left alone."""
HEAD = 8
"""What a head keeps of its width."""
WIDE = 64
"""Widths from this keep as much as a head: with fewer channels a rectifier may let nothing through."""
TELLING = 256
"""Two models that share a width from this are taken to agree on it; narrower ones are often the same by chance."""
TEXT, TAKEN = "text_config", "hidden_size"
"""Where the configurations of transformers hold a text model, and the width it takes from an encoder beside it."""
_QUARTERS = 4
_FEW = 4
_UNITS = {"axes": 2, "rotations": 1}
"""Parts of a head that rotate on their own: an axis has sines and cosines, of rotations there are half as many."""


@dataclass(slots=True)
class Family:
    """Sections that share a width, and so have to be divided by the same factor."""

    sections: list[Section]
    widths: set[int]


def narrowed(sections: Iterable[Section], most: int) -> tuple[dict[Path, Any], set[int]]:
    """Return what to change so that widths shrink by a factor of at most ``most``, and the factors found."""
    known = [section for section in sections if not _has_coefficient(section)]
    factor_of: dict[int, int] = {}
    changes: dict[Path, Any] = {}
    factors: set[int] = set()
    for family in _families(known):
        factor = _find_factor(family, most)
        factors |= {factor} if factor > 1 and family.widths else set()
        factor_of |= dict.fromkeys(family.widths, factor)
        for section in family.sections:
            changes.update(_divided(section, factor))
    apart = max(factors, default=1)
    for section in known:
        for name, value in _fields(section, "outer"):
            changes[*section.path, name] = each_number(value, lambda width: _divide(width, factor_of.get(width, apart)))
        for name, value in _fields(section, "leaving"):
            beside = _find_beside(section, known)
            changes[*section.path, name] = (
                changes[*beside.path, TAKEN] if beside else _divide(value, factor_of.get(value, apart))
            )
    return changes, factors


def _find_beside(section: Section, known: Iterable[Section]) -> Section | None:
    """Return the text model that a section stands beside and that takes what leaves its model."""
    if not section.path:
        return None
    path = (*section.path[:-1], TEXT)
    return next((other for other in known if other.path == path and other.fields.get(TAKEN)), None)


def _families(sections: Iterable[Section]) -> list[Family]:
    families: list[Family] = []
    for section in sections:
        joined = Family([section], {width for width in _numbers(section, "width", "model", "head") if width > NARROW})
        apart = []
        for other in families:
            if {width for width in other.widths & joined.widths if width >= TELLING} or (
                section.is_part and _holds(other, section)
            ):
                joined = Family([*other.sections, *joined.sections], joined.widths | other.widths)
            else:
                apart.append(other)
        families = [*apart, joined]
    return families


def _holds(family: Family, part: Section) -> bool:
    return any(section.path == part.path[:-1] for section in family.sections)


def _fields(section: Section, *meanings: str) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in section.fields.items() if meaning_of(name) in meanings and value]


def _has_coefficient(section: Section) -> bool:
    return any(meaning_of(name) == "coefficient" for name in section.fields)


def _numbers(section: Section, *meanings: str) -> set[int]:
    """Return the positive numbers of fields with these meanings."""
    return {number for _, value in _fields(section, *meanings) for number in list_numbers(value) if number > 0}


def _find_factor(family: Family, most: int) -> int:
    """Return the largest factor of every wide width; if that is small, the largest that suits those of heads."""
    wide = [width for width in family.widths if width >= WIDE]
    suited = [factor for factor in FACTORS if factor <= most and all(_suits(s, factor) for s in family.sections)]
    exact = next((factor for factor in suited if not any(width % factor for width in wide)), 1)
    return exact if exact >= min(_FEW, most) or not suited else suited[0]


def _suits(section: Section, factor: int) -> bool:
    """Tell whether heads go on dividing what they divided, and keep a fair width."""
    own = {width for width in _numbers(section, "head") if width > HEAD}
    heads = {(width, 1) for width in own} or _pairs(section)
    if any(width // factor < HEAD for width in _numbers(section, "width", "model") if width >= WIDE):
        return False
    return all(_keeps_head(*head, factor) for head in heads) and all(
        _keeps_parts(value, _UNITS[meaning_of(name)], factor) for name, value in _parts(section)
    )


def _pairs(section: Section) -> set[tuple[int, int]]:
    """Return widths with the numbers of heads that divide them: stage by stage where both are given so, else all."""
    pairs: set[tuple[int, int]] = set()
    for _, value in _fields(section, "model"):
        for _, held in _fields(section, "heads"):
            widths, counts = [*list_numbers(value)], [*list_numbers(held)]
            is_staged = len(widths) == len(counts)
            pairs.update(zip(widths, counts, strict=True) if is_staged else product(widths, counts))
    return {(width, count) for width, count in pairs if width > NARROW and count > 0 and width % count == 0}


def _keeps_head(width: int, count: int, factor: int) -> bool:
    """Tell whether a head stays whole, a multiple of four where it was one, else even where it was."""
    if width % (count * factor):
        return False
    each, left = width // count, width // count // factor
    return left >= min(HEAD, each) and not any(left % part for part in (2, 4) if each % part == 0)


def _parts(section: Section) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in _fields(section, "axes", "rotations") if isinstance(value, list | tuple)]


def _keeps_parts(parts: Any, unit: int, factor: int) -> bool:
    total: int = sum(parts)
    return total % (factor * unit) == 0 and total // factor >= len(parts) * unit


def _divided(section: Section, factor: int) -> dict[Path, Any]:
    """Return the fields of a section divided; what is a group for each of them stays one."""
    changes: dict[str, Any] = {}
    for name, value in _fields(section, "width", "model", "free"):
        changes[name] = each_number(value, lambda width: _divide(width, factor))
    for name, value in _fields(section, "head"):
        changes[name] = each_number(value, lambda width: width if width <= HEAD else width // factor)
    for name, value in _parts(section):
        changes[name] = _shared(value, factor, _UNITS[meaning_of(name)])
    widths = _numbers(section, "width", "model")
    for name, value in _fields(section, "groups"):
        changes[name] = each_number(value, lambda count: _fewer_groups(count, widths, factor))
    return {(*section.path, name): value for name, value in changes.items()}


def _fewer_groups(count: int, widths: set[int], factor: int) -> int:
    """Return few enough groups to divide what so many groups divided, and halves and quarters of it."""
    narrow = [_divide(width, factor) for width in widths if count > 0 and width % count == 0]
    return max(1, gcd(count, *narrow) // _QUARTERS) if factor > 1 and narrow else count


def _divide(width: int, factor: int) -> int:
    """Return a width divided; one that does not divide becomes a multiple of eight."""
    if width <= NARROW:
        return width
    if width % factor == 0 and width // factor > 1:
        return width // factor
    return -(-width // (factor * HEAD)) * HEAD


def _shared(parts: Any, factor: int, unit: int) -> Any:
    """Divide the sum, and share it among the parts in whole units; what is left goes to one unlike the others."""
    total = sum(parts) // factor // unit
    shares = [max(1, total * part // sum(parts)) for part in parts]
    odd = next((place for place, part in enumerate(parts) if [*parts].count(part) == 1), 0)
    while sum(shares) > total:
        shares[shares.index(max(shares))] -= 1
    shares[odd] += total - sum(shares)
    return type(parts)([share * unit for share in shares])
