"""Narrow settings: every width divided by one factor, so that what divides or adds up goes on doing so."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .settings import Path, Section, each_number, list_numbers
from .words import meaning_of

FACTORS = (64, 48, 40, 32, 24, 20, 16, 14, 12, 10, 8, 7, 6, 5, 4, 3, 2)
"""What widths are divided by, if it suits them."""
NARROW = 16
"""Widths up to this are left alone."""
HEAD = 8
"""What a head keeps of its width."""
_QUARTERS = 4
_FEW = 4


@dataclass(slots=True)
class Family:
    """Sections that share a width, and so have to be divided by the same factor."""

    sections: list[Section] = field(default_factory=list)
    widths: set[int] = field(default_factory=set)


def narrowed(sections: Iterable[Section], most: int) -> tuple[dict[Path, Any], set[int]]:
    """Return what to change so that widths shrink by a factor of at most ``most``, and the factors found."""
    changes: dict[Path, Any] = {}
    factors: set[int] = set()
    for family in _families(sections):
        factor = _find_factor(family, most)
        if factor > 1 and family.widths:
            factors.add(factor)
            changes.update(_divided(family, factor))
    return changes, factors


def _families(sections: Iterable[Section]) -> list[Family]:
    families: list[Family] = []
    for section in sections:
        widths = {number for number in _numbers(section, ("width", "head")) if number > NARROW}
        joined = Family([section], widths)
        apart = []
        for other in families:
            if other.widths & widths:
                joined.sections[:0], joined.widths = other.sections, joined.widths | other.widths
            else:
                apart.append(other)
        families = [*apart, joined]
    return families


def _numbers(section: Section, meanings: tuple[str, ...]) -> Iterator[int]:
    for name, value in section.fields.items():
        if meaning_of(name) in meanings:
            yield from list_numbers(value)


def _find_factor(family: Family, most: int) -> int:
    """Return the largest factor that suits every width; if that is small, the largest that suits those of heads."""
    suited = [factor for factor in FACTORS if factor <= most and all(_suits(s, factor) for s in family.sections)]
    exact = next((factor for factor in suited if not any(width % factor for width in family.widths)), 1)
    return exact if exact >= min(_FEW, most) or not suited else suited[0]


def _suits(section: Section, factor: int) -> bool:
    """Tell whether heads and groups still divide what they divided, and a head keeps a fair width."""
    heads = {number for number in _numbers(section, ("heads",)) if number > 0}
    own = [number for number in _numbers(section, ("head",)) if number > 0]
    parts = {(width, 1) for width in own}
    widths = {width for width in _numbers(section, ("width",)) if width > NARROW}
    if not own:
        parts |= {(width, count) for width in widths for count in heads if width % count == 0}
    groups = {number for number in _numbers(section, ("groups",)) if number > 1}
    is_whole = not any(width % group == 0 and width % (group * factor) for width in widths for group in groups)
    return (
        is_whole
        and all(_keeps_heads(width, count, factor) for width, count in parts)
        and _keeps_sections(section, factor)
    )


def _keeps_heads(width: int, count: int, factor: int) -> bool:
    each = width // count
    if each <= HEAD:
        return width % (count * factor) == 0 or count == 1
    if width % (count * factor):
        return False
    left = each // factor
    return left >= HEAD and (left % _QUARTERS == 0 or each % _QUARTERS != 0) and (left % 2 == 0 or each % 2 != 0)


def _keeps_sections(section: Section, factor: int) -> bool:
    sums = [
        sum(list_numbers(value)) for name, value in section.fields.items() if meaning_of(name) == "section" and value
    ]
    return not any(total % factor for total in sums)


def _divided(family: Family, factor: int) -> dict[Path, Any]:
    changes: dict[Path, Any] = {}
    for section in family.sections:
        for name, value in section.fields.items():
            meaning = meaning_of(name)
            if meaning in ("width", "free"):
                changes[*section.path, name] = each_number(value, lambda number: _divide(number, factor))
            elif meaning == "head":
                changes[*section.path, name] = each_number(value, lambda number: _divide_head(number, factor))
            elif meaning == "section" and value:
                changes[*section.path, name] = _shared(value, factor)
    return {path: value for path, value in changes.items() if value is not None}


def _divide(number: int, factor: int) -> int:
    if number <= NARROW:
        return number
    if number % factor == 0 and number // factor >= HEAD:
        return number // factor
    return max(HEAD, -(-number // (factor * HEAD)) * HEAD)


def _divide_head(number: int, factor: int) -> int:
    return number if number <= HEAD else number // factor


def _shared(parts: Any, factor: int) -> Any:
    """Divide the sum, and share it among the parts as evenly as they shared it before."""
    total = sum(parts) // factor
    shares = [max(1, part // factor) for part in parts]
    for place in range(total - sum(shares)):
        shares[place % len(shares)] += 1
    return type(parts)(shares)
