"""Find the targets that an architecture's page shows for a choice of preset, towers, method, server and rank."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from ....domain.choosing.slot_hits import count_hits
from ....domain.layers import Coverage, Slot
from ....domain.mappings import ArchitectureDetail, Mapping
from ....domain.methods import TARGETED, get_family, get_method, list_methods
from ....domain.serving import list_engines
from ....domain.vocabulary import PRESETS, RANK, RECOMMENDED, STANDS_FOR
from ....errors import LoradarError, NotRegistered
from ....registry import Registry
from .costs import Cost

SHOWN_METHODS = ("LORA", "IA3", "ADALORA", "LOHA", "LOKR", "OFT", "VERA", "LN_TUNING")
"""Methods that are offered first; the others are one click further."""

FIELDS = (
    "target_modules",
    "target_parameters",
    "exclude_modules",
    "feedforward_modules",
    "modules_to_save",
    "rank_pattern",
)
"""Fields of PEFT's configuration that name modules, the most read first."""

LONGEST_PATTERN = 400
"""Characters of ``rank_pattern`` beside the targets; a longer one, such as of 128 experts, is in the snippets alone."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The choices made on the page; ``None`` for the page's own."""

    preset: str | None = None
    towers: str | None = None
    method: str | None = None
    server: str | None = None
    rank: int | None = None
    model: str | None = None

    def to_query(self, **changes: str | int | None) -> dict[str, str | int | None]:
        """Return the query of the page with this choice, but for some values."""
        return asdict(self) | changes


@dataclass(frozen=True, slots=True)
class Chip:
    """One value to choose, as a link.

    Attributes:
        label: Its text.
        query: The query of the page with it.
        is_current: Whether it is chosen.
        title: What it means, in words.
    """

    label: str
    query: dict[str, str | int | None]
    is_current: bool
    title: str = ""


class Answer:
    """The targets of one choice, with their reasons, costs and verdicts.

    Args:
        registry: The registry.
        detail: The architecture.
        choice: What was chosen.

    Attributes:
        mapping: The mapping, at the rank chosen.
    """

    def __init__(self, registry: Registry, detail: ArchitectureDetail, choice: Choice) -> None:
        self.detail, self.choice = detail, choice
        self._registry = registry
        self.method = (choice.method or self.first_method).upper()
        self.preset = choice.preset or self.first_preset
        self.mapping = self._at_rank(self._find())

    @cached_property
    def presets(self) -> tuple[str, ...]:
        """The presets that the method has here, the recommended one first."""
        known = {one.preset for one in self.detail.mappings if one.peft_type == self.method}
        known |= {preset for preset, other in STANDS_FOR.items() if other in known and self.method == TARGETED}
        return tuple(preset for preset in dict.fromkeys((RECOMMENDED, *PRESETS)) if preset in known)

    @property
    def first_preset(self) -> str:
        """The preset that is shown first: the one that trains best by the evidence."""
        return self.presets[0] if self.presets else "default"

    @property
    def first_method(self) -> str:
        """The method that is shown first: LoRA, where it has a mapping."""
        return self.methods[0] if self.methods else TARGETED

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The methods of its mappings, those most used first."""
        stored = {one.peft_type for one in self.detail.mappings}
        families = {get_method(name).family for name in stored}
        known = stored | {each.name for each in list_methods() if each.family in families}
        return (*(name for name in SHOWN_METHODS if name in known), *sorted(known - set(SHOWN_METHODS)))

    @cached_property
    def adapted(self) -> tuple[int, ...]:
        """The number of layers of each slot that the targets match."""
        return tuple(count_hits(self.mapping.spec, self.detail.slots))

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The slots of which the targets match a layer."""
        return tuple(slot for slot, count in zip(self.detail.slots, self.adapted, strict=True) if count)

    @property
    def towers(self) -> tuple[str, ...]:
        """The towers that are adapted."""
        return tuple(dict.fromkeys(slot.tower for slot in self.slots))

    @property
    def cost(self) -> Cost | None:
        """Its cost; ``None`` where the sizes are not on record."""
        facts = self.mapping.prompt_facts or self.detail.prompt_facts
        if self.mapping.formula is None:
            return None
        return Cost(self.mapping.formula, self.mapping.rank, facts.parameters if facts else None)

    @property
    def reference(self) -> str:
        """The reference to type in a command."""
        return self.choice.model or self.detail.architecture.reference.removeprefix("transformers:")

    @property
    def is_linear(self) -> bool:
        """Whether the same formula holds at every rank: no layer has a rank of its own."""
        return not self._has_own_ranks(self.mapping)

    @property
    def fields(self) -> list[tuple[str, object]]:
        """The fields of PEFT's configuration that name modules, those that are set."""
        pattern = self.mapping.rank_pattern
        short = pattern if sum(map(len, pattern or ())) <= LONGEST_PATTERN else None
        values = self.mapping.spec.values | {"rank_pattern": short}
        return [(name, values[name]) for name in FIELDS if values[name] is not None]

    @property
    def suggestion(self) -> dict[str, str | None]:
        """The query that fills in the form for another mapping, with these targets to start from."""
        own, targets = self.detail.architecture, self.mapping.spec.target_modules
        names = targets if targets is None or isinstance(targets, str) else "\n".join(targets)
        is_short = len(names or "") <= LONGEST_PATTERN
        return {
            "library": own.library,
            "name": own.name,
            "peft_type": self.method,
            "preset": self.mapping.preset,
            "target_modules": names if is_short else None,
        }

    @property
    def reach(self) -> list[tuple[str, int, int]]:
        """The blocks with an adapter by tower that has one: name, reached, all."""
        return [(tower, hit, of) for tower, hit, of in self.coverage if hit]

    @property
    def coverage(self) -> list[tuple[str, int, int]]:
        """The blocks of each tower: name, those with an adapter, all."""
        return _sum_up(self.mapping.coverage)

    def list_chips(self) -> Iterator[tuple[str, list[Chip]]]:
        """Yield the choices: a name, and a chip for each value."""
        choice = self.choice
        yield (
            "Preset",
            [
                Chip(preset, choice.to_query(preset=preset if n else None), preset == self.preset)
                for n, preset in enumerate(self.presets)
            ],
        )
        adaptable = list(dict.fromkeys(slot.tower for slot in self.detail.slots if slot.per_rank))
        if len(adaptable) > 1 and self.method == TARGETED:
            values = [("as the preset", None), *((tower, tower) for tower in adaptable), ("all", "all")]
            if choice.towers and choice.towers not in adaptable and choice.towers != "all":
                values.append((choice.towers.replace(",", " + "), choice.towers))
            yield (
                "Towers",
                [Chip(label, choice.to_query(towers=value), choice.towers == value) for label, value in values],
            )
        yield (
            "Method",
            [
                Chip(name, {"model": choice.model, "method": name if n else None}, name == self.method)
                for n, name in enumerate(self.methods)
                if name in SHOWN_METHODS or name == self.method
            ],
        )
        servers = [*self._list_servers()]
        if servers:
            yield "Server", [Chip("any", choice.to_query(server=None), choice.server is None), *servers]

    def _list_servers(self) -> Iterator[Chip]:
        """Yield the engines that apply an adapter on some layers of this class."""
        class_name = self.detail.architecture.class_name
        for engine in list_engines() if self.method == TARGETED else ():
            if class_name in engine.supports and self.detail.architecture.library == "transformers":
                query = self.choice.to_query(server=engine.key)
                yield Chip(
                    engine.name, query, self.choice.server == engine.key, f"only layers that {engine.label} applies"
                )

    def _find(self) -> Mapping:
        """Return the mapping of the choice at PEFT's rank; a dead one, which no lookup returns, as the last.

        Raises:
            LoradarError: If there is none; it states why.
        """
        own = self.detail.architecture
        selected: dict[str, Any] = {"towers": self.choice.towers, "servable": self.choice.server}
        found = self._registry.find(own.name, self.method, self.preset, own.library, **selected)
        if found is None and not any(selected.values()):
            stated = (one for one in self.detail.mappings if (one.peft_type, one.preset) == (self.method, self.preset))
            found = next(stated, None)
        if found is None:
            known = [preset for preset in get_family(get_method(self.method).family).presets if preset != self.preset]
            message = f"{own.reference} has no {self.method} targets for preset {self.preset!r}."
            raise NotRegistered(self.preset, known, message)
        return found

    def _at_rank(self, mapping: Mapping) -> Mapping:
        rank = self.choice.rank or RANK
        if rank == mapping.rank or mapping.formula is None or not mapping.formula.per_rank:
            return mapping
        if not self._has_own_ranks(mapping):
            return replace(mapping, rank=rank)
        own = self.detail.architecture
        selected: dict[str, Any] = {"towers": self.choice.towers, "servable": self.choice.server, "rank": rank}
        at = self._registry.find(own.name, self.method, self.preset, own.library, **selected) or mapping
        return replace(
            mapping, rank=at.rank, rank_pattern=at.rank_pattern, alpha_pattern=at.alpha_pattern, formula=at.formula
        )

    def _has_own_ranks(self, mapping: Mapping) -> bool:
        """Return whether ranks of single layers follow the rank: those of experts, and of convolutions in groups."""
        return bool(mapping.rank_pattern) or any("*" in (slot.members or "") for slot in self.detail.slots)


def _sum_up(coverage: Iterable[Coverage]) -> list[tuple[str, int, int]]:
    totals: dict[str, list[int]] = {}
    for each in coverage:
        total = totals.setdefault(each.tower or "main", [0, 0])
        total[0] += each.hit
        total[1] += each.of
    return [(tower, hit, of) for tower, (hit, of) in totals.items()]


def find_answer(registry: Registry, detail: ArchitectureDetail, choice: Choice) -> tuple[Answer, LoradarError | None]:
    """Return the answer to a choice; to the page's own one, with the error, if the choice has none."""
    try:
        return Answer(registry, detail, choice), None
    except LoradarError as error:
        if choice == Choice(model=choice.model):
            raise
        return Answer(registry, detail, Choice(model=choice.model)), error
