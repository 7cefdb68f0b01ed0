"""Narrow settings: every width divided by one factor, so that sums and divisors of widths stay consistent."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from math import gcd
from typing import Any

from .config_tree import Path, Section, each_number, list_numbers, meaning_of

FACTORS = (64, 48, 40, 32, 24, 20, 18, 16, 14, 12, 10, 9, 8, 7, 6, 5, 4, 3, 2)
"""Factors that are tried, the largest first."""
NARROW = 16
"""Widths up to this are left alone."""
HEAD = 8
"""Least width of a head."""
WIDE = 64
"""Widths from this keep as much as a head: with fewer channels a rectifier may let nothing through."""
TELLING = 256
"""Two models that share a width from this are taken to agree on it; narrower ones are often the same by chance."""
TEXT, TAKEN = "text_config", "hidden_size"
"""Section of a text model in the configurations of transformers, and the width it takes from an encoder beside it."""
_QUARTERS = 4
_FEW = 4
_UNITS = {"axes": 2, "rotations": 1}
"""Parts of a head that rotate on their own: an axis has sines and cosines, of rotations there are half as many."""


@dataclass(slots=True)
class Family:
    """Sections that share a width, and so have to be divided by the same factor."""

    sections: list[Section]
    widths: set[int]

    def is_joined(self, section: Section, widths: set[int]) -> bool:
        """Return whether a section with these widths belongs to the family: it shares one, or is part of a section."""
        if any(width >= TELLING for width in self.widths & widths):
            return True
        return section.is_part and any(own.path == section.path[:-1] for own in self.sections)

    def find_factor(self, most: int, *, has_fewer_heads: bool = False) -> int:
        """Return the largest factor of every wide width; if that is small, the largest that suits those of heads."""
        wide = [width for width in self.widths if width >= WIDE]
        suits = _suits_numbers if has_fewer_heads else _suits
        suited = [factor for factor in FACTORS if factor <= most and all(suits(s, factor) for s in self.sections)]
        exact = next((factor for factor in suited if not any(width % factor for width in wide)), 1)
        return exact if exact >= min(_FEW, most) or not suited else suited[0]


def narrowed(
    sections: Iterable[Section], most: int, *, has_fewer_heads: bool = False
) -> tuple[dict[Path, Any], set[int]]:
    """Return the changes that divide widths by a factor of at most ``most``, and the factors found.

    Beside a coefficient, with which the model computes its widths, none is changed. Heads become narrower, or there are
    fewer of them.
    """
    known = [s for s in sections if not any(meaning_of(name) == "coefficient" for name in s.fields)]
    factor_of: dict[int, int] = {}
    changes: dict[Path, Any] = {}
    factors: set[int] = set()
    for family in group_families(known):
        factor = family.find_factor(most, has_fewer_heads=has_fewer_heads)
        factors |= {factor} if factor > 1 and family.widths else set()
        factor_of |= dict.fromkeys(family.widths, factor)
        for section in family.sections:
            fields = divide_fields(section, factor, has_fewer_heads=has_fewer_heads)
            changes |= {(*section.path, name): value for name, value in fields.items()}
    changes |= divide_outputs(known, changes, factor_of, max(factors, default=1))
    return changes, factors


def divide_outputs(
    sections: Iterable[Section], changes: dict[Path, Any], factor_of: dict[int, int], largest: int
) -> dict[Path, Any]:
    """Return the fields with widths of other models, divided as those models are, else by the largest factor."""
    known = [*sections]
    outputs: dict[Path, Any] = {}

    def divide(width: int) -> int:
        return _divide(width, factor_of.get(width, largest))

    for section in known:
        for name, value in section.list_fields("outer"):
            outputs[*section.path, name] = each_number(value, divide)
        beside = (*section.path[:-1], TEXT)  # the text model that takes the output of this section's model
        takes = section.path and any(other.path == beside and other.fields.get(TAKEN) for other in known)
        for name, value in section.list_fields("leaving"):
            outputs[*section.path, name] = changes[*beside, TAKEN] if takes else divide(value)
    return outputs


def group_families(sections: Iterable[Section]) -> list[Family]:
    """Return the families of sections, those that share a width joined."""
    families: list[Family] = []
    for section in sections:
        own = {width for width in _numbers(section, "width", "model", "head") if width > NARROW}
        joined = Family([section], own)
        apart = []
        for other in families:
            if other.is_joined(section, joined.widths):
                joined = Family([*other.sections, *joined.sections], joined.widths | other.widths)
            else:
                apart.append(other)
        families = [*apart, joined]
    return families


def divide_fields(section: Section, factor: int, *, has_fewer_heads: bool = False) -> dict[str, Any]:
    """Return the fields of a section with divided widths; groups stay groups of each width."""
    changes: dict[str, Any] = {}
    for name, value in section.list_fields("width", "model", "free"):
        changes[name] = each_number(value, lambda width: _divide(width, factor))
    changes |= _fewer_heads(section, factor) if has_fewer_heads else _narrower_heads(section, factor)
    widths = _numbers(section, "width", "model")

    def fewer_groups(count: int) -> int:
        narrow = [_divide(width, factor) for width in widths if count > 0 and width % count == 0]
        return max(1, gcd(count, *narrow) // _QUARTERS) if factor > 1 and narrow else count

    for name, value in section.list_fields("groups"):
        changes[name] = each_number(value, fewer_groups)
    return changes


def _fewer_heads(section: Section, factor: int) -> dict[str, Any]:
    return {name: each_number(value, lambda n: max(1, n // factor)) for name, value in section.list_fields("heads")}


def _narrower_heads(section: Section, factor: int) -> dict[str, Any]:
    widths = section.list_fields("head")
    changes = {name: each_number(value, lambda n: n if n <= HEAD else n // factor) for name, value in widths}
    return changes | {
        name: share_parts(value, factor, _UNITS[meaning_of(name)]) for name, value in _list_parts(section)
    }


def share_parts(parts: Any, factor: int, unit: int) -> Any:
    """Return parts whose sum is divided, in whole units; the remainder goes to the first part unlike the others."""
    total = sum(parts) // factor // unit
    shares = [max(1, total * part // sum(parts)) for part in parts]
    odd = next((index for index, part in enumerate(parts) if [*parts].count(part) == 1), 0)
    while sum(shares) > total:
        shares[shares.index(max(shares))] -= 1
    shares[odd] += total - sum(shares)
    return type(parts)([share * unit for share in shares])


def _suits(section: Section, factor: int) -> bool:
    """Return whether heads of the divided section still divide its widths, and keep a fair width."""
    if any(width // factor < HEAD for width in _numbers(section, "width", "model") if width >= WIDE):
        return False
    for name, parts in _list_parts(section):
        unit, total = _UNITS[meaning_of(name)], sum(parts)
        if total % (factor * unit) or total // factor < len(parts) * unit:
            return False
    own = {width for width in _numbers(section, "head") if width > HEAD}
    return all(keeps_head(width, count, factor) for width, count in {(width, 1) for width in own} or _pairs(section))


def _suits_numbers(section: Section, factor: int) -> bool:
    """Return whether the numbers of heads of a section can be divided, as its widths are."""
    is_fair = all(width // factor >= HEAD for width in _numbers(section, "width", "model") if width >= WIDE)
    return is_fair and not any(count % factor for count in _numbers(section, "heads"))


def keeps_head(width: int, count: int, factor: int) -> bool:
    """Return whether a head stays whole, a multiple of four if it was one, else even if it was."""
    if width % (count * factor):
        return False
    old, new = width // count, width // count // factor
    return new >= min(HEAD, old) and not any(new % part for part in (2, 4) if old % part == 0)


def _pairs(section: Section) -> set[tuple[int, int]]:
    """Return widths with the numbers of heads that divide them: stage by stage where both are so listed, else all."""
    pairs: set[tuple[int, int]] = set()
    for (_, model), (_, heads) in product(section.list_fields("model"), section.list_fields("heads")):
        widths, counts = [*list_numbers(model)], [*list_numbers(heads)]
        pairs.update(zip(widths, counts, strict=True) if len(widths) == len(counts) else product(widths, counts))
    return {(width, count) for width, count in pairs if width > NARROW and count > 0 and width % count == 0}


def _numbers(section: Section, *meanings: str) -> set[int]:
    """Return the positive numbers of fields with these meanings."""
    return {number for _, value in section.list_fields(*meanings) for number in list_numbers(value) if number > 0}


def _list_parts(section: Section) -> list[tuple[str, Any]]:
    return [item for item in section.list_fields("axes", "rotations") if isinstance(item[1], list | tuple)]


def _divide(width: int, factor: int) -> int:
    """Return a width divided; one that does not divide becomes a multiple of eight."""
    if width <= NARROW:
        return width
    if width % factor == 0 and width // factor > 1:
        return width // factor
    return -(-width // (factor * HEAD)) * HEAD
