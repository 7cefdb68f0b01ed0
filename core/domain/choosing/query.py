"""Parse what to adapt: a preset, towers, roles and blocks, in any combination."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any, Self, get_args

from ...errors import InvalidRequest, UnknownName
from ...similar_names import nearest
from ..presets import NEVER
from ..serving import get_engine
from ..vocabulary import Role, Tower

TOWERS: tuple[str, ...] = (*get_args(Tower), "all")
ROLES: tuple[Role, ...] = get_args(Role)
SELECTING = ("towers", "roles", "blocks", "rank", "expert_rank", "budget", "servable")
"""The values that a selection has beside its preset."""
EXPERT_RANKS = ("auto", "shared")
MOST_RANK = 1_000_000
FORMS = "Forms: 'last 8', 'first 4', 'every 2', '10-20', '3', and several joined by commas: '0-3,10-20'."
ExpertRank = str | int | None
"""``shared`` (the rank of all layers), ``auto`` (that divided by the experts that run for a token), a rank, or the
preset's own."""
_COUNTED = re.compile(r"(first|last|every) +(\d+)")
_RANGE = re.compile(r"(\d+)(?: *- *(\d+))?")


@dataclass(frozen=True, slots=True)
class BlockChoice:
    """Blocks of a stack, by their numbers from 0.

    Attributes:
        says: Canonical text: ``last 8``, ``first 4``, ``every 2``, or ranges as ``0-3,10-20``.
    """

    says: str

    @classmethod
    def parse(cls, value: object) -> Self:
        """Parse a text, an index or a collection of indices.

        Raises:
            InvalidRequest: If it names no block, a range backwards, or a block twice.
        """
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return cls(str(value))
        if isinstance(value, str):
            counted = _COUNTED.fullmatch(value.strip().lower())
            if counted and int(counted[2]) > 0:
                return cls(f"{counted[1]} {int(counted[2])}")
            return cls(_join(_parse_ranges(value)))
        known = [*value] if isinstance(value, Collection) else []
        if not known or not all(type(index) is int and index >= 0 for index in known):
            raise _invalid_blocks(value, "names no blocks")
        if len({*known}) < len(known):
            raise _invalid_blocks(value, "names a block twice")
        return cls(_join([(index, index) for index in sorted(known)]))

    def list_in(self, depth: int) -> frozenset[int]:
        """Return the chosen blocks among those of a stack."""
        form, _, number = self.says.partition(" ")
        every = range(depth)
        if form == "first":
            return frozenset(every[: int(number)])
        if form == "last":
            return frozenset(every[-int(number) :])
        if form == "every":
            return frozenset(every[:: int(number)])
        ranges = _parse_ranges(self.says)
        return frozenset(index for index in every if any(first <= index <= last for first, last in ranges))


def _parse_ranges(text: str) -> list[tuple[int, int]]:
    found = [_RANGE.fullmatch(part.strip()) for part in text.split(",")]
    ranges = [(int(each[1]), int(each[2] or each[1])) for each in found if each]
    if not all(found):
        raise _invalid_blocks(text, "cannot be read")
    backwards = next((f"{first}-{last}" for first, last in ranges if last < first), None)
    if backwards:
        raise _invalid_blocks(text, f"has the range {backwards}, which ends before it starts")
    ranges.sort()
    if any(after[0] <= before[1] for before, after in pairwise(ranges)):
        raise _invalid_blocks(text, "names a block twice")
    return ranges


def _join(ranges: Iterable[tuple[int, int]]) -> str:
    """Return sorted ranges as text, adjacent ones as one."""
    joined: list[tuple[int, int]] = []
    for first, last in ranges:
        if joined and joined[-1][1] + 1 == first:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in joined)


def join_indices(indices: Iterable[int]) -> str:
    """Return indices as text: ``0-3,8``."""
    return _join((index, index) for index in sorted(indices))


def _invalid_blocks(value: object, why: str) -> InvalidRequest:
    return InvalidRequest(f"blocks={value!r} {why}. {FORMS}", field="blocks", value=str(value))


@dataclass(frozen=True, slots=True)
class Selection:
    """What to adapt: a preset, narrowed or widened by towers, roles and blocks.

    Attributes:
        preset: The preset; with roles, ``default`` stands for every layer that takes an adapter.
        towers: The towers; those the preset adapts if there are none. ``all`` is every tower.
        roles: Roles or patterns of them, such as ``attention.*``; a pattern names no role without adapters, which must
            be named itself.
        blocks: The blocks of each stack.
        rank: The rank of LoRA; ``None`` for PEFT's default.
        expert_rank: The rank of routed experts: ``auto``, ``shared`` or a number; ``None`` for that of the preset.
        budget: Parameters to train at most, which decide the rank, and the preset if that is ``default``.
        servable: An engine (``vllm``): the layers whose adapters it applies alone.
    """

    preset: str = "default"
    towers: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    blocks: BlockChoice | None = None

    rank: int | None = None
    expert_rank: ExpertRank = None
    budget: str | int | None = None
    servable: str | None = None

    @classmethod
    def parse(cls, preset: str = "default", **given: Any) -> Self:
        """Parse values from outside: texts with commas or collections of texts, and any form of blocks.

        Raises:
            InvalidRequest: If a value is given that selects nothing, the blocks or a rank cannot be read, or rank and
                budget are both given.
            UnknownName: If a tower or a role is not in the vocabulary, or there is no such engine.
        """
        for name in given:
            if name not in SELECTING:
                near = nearest(name, SELECTING, limit=1)
                closest = f" Closest: {near[0]!r}." if near else ""
                raise InvalidRequest(f"{name!r} selects nothing.{closest} Give: {', '.join(SELECTING)}.", field=name)
        blocks, rank, budget = given.get("blocks"), _parse_rank("rank", given.get("rank")), given.get("budget")
        if rank is not None and budget is not None:
            message = f"rank={rank} and budget={budget!r} both decide the rank: leave one out."
            raise InvalidRequest(message, field="rank", value=str(rank))
        return cls(
            preset,
            _parse_names("tower", given.get("towers"), TOWERS),
            _parse_names("role", given.get("roles"), ROLES),
            None if blocks is None else BlockChoice.parse(blocks),
            rank,
            _parse_expert_rank(given.get("expert_rank")),
            budget,
            get_engine(str(given["servable"])).key if given.get("servable") else None,
        )

    @property
    def is_whole(self) -> bool:
        """Whether its layers are those of the preset."""
        return not (self.towers or self.roles or self.blocks or self.servable)

    @property
    def is_plain(self) -> bool:
        """Whether it is a preset alone."""
        return self.is_whole and (self.rank, self.expert_rank, self.budget) == (None, None, None)

    def to_query(self) -> dict[str, str]:
        """Return the values beside the preset that are set, as texts that ``parse`` reads."""
        blocks = self.blocks.says if self.blocks else None
        texts = (",".join(self.towers), ",".join(self.roles), blocks)
        values = (*texts, self.rank, self.expert_rank, self.budget, self.servable)
        return {name: str(value) for name, value in zip(SELECTING, values, strict=True) if value}

    @property
    def rank_of_experts(self) -> ExpertRank:
        """The rank of experts, or the way of the preset."""
        return self.expert_rank or ("auto" if self.preset == "recommended" else "shared")

    def __str__(self) -> str:
        """Return its layers in words: ``preset 'all-linear', towers vision, blocks last 8``."""
        blocks = self.blocks.says if self.blocks else ""
        named = (
            ("towers", ", ".join(self.towers)),
            ("roles", ", ".join(self.roles)),
            ("blocks", blocks),
            ("servable by", self.servable),
        )
        return ", ".join([f"preset {self.preset!r}", *(f"{name} {value}" for name, value in named if value)])

    def has_role(self, role: Role) -> bool:
        """Return whether its roles name this one."""
        return role in self.roles or (role not in NEVER and any(fnmatchcase(role, pattern) for pattern in self.roles))


def _parse_rank(field: str, value: Any, words: str = "a positive integer such as 8") -> int | None:
    rank = int(value) if isinstance(value, str) and value.isdecimal() else value
    if rank is None:
        return None
    if type(rank) is not int or not 0 < rank <= MOST_RANK:
        raise InvalidRequest(f"{field}={value!r} is no rank: give {words}.", field=field, value=str(value))
    return rank


def _parse_expert_rank(value: Any) -> ExpertRank:
    if isinstance(value, str) and value in EXPERT_RANKS:
        return value
    return _parse_rank("expert_rank", value, f"{', '.join(map(repr, EXPERT_RANKS))} or a positive integer")


def _parse_names(noun: str, value: Any, known: Sequence[str]) -> tuple[str, ...]:
    """Return names or patterns in lower case, each once."""
    given = value.split(",") if isinstance(value, str) else [*value] if isinstance(value, Collection) else value
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        message = f"{noun}s={value!r} is no list of {noun}s. There are: {', '.join(known)}."
        raise InvalidRequest(message, field=f"{noun}s", value=str(value))
    names = [name.strip().lower() for each in given for name in each.split(",") if name.strip()]
    if not names:
        message = f"{noun}s={value!r} names no {noun}: leave it out, or name some of {', '.join(known)}."
        raise InvalidRequest(message, field=f"{noun}s", value=str(value))
    for name in names:
        if not any(fnmatchcase(one, name) if noun == "role" else one == name for one in known):
            raise UnknownName(name, known, f"{noun.capitalize()}s: {', '.join(known)}.", field=f"{noun}s")
    return tuple(dict.fromkeys(names))
