"""Compose the mapping of a composite architecture with other models than the default ones for its free parts.

The layers of a part are the slots of its model's own architecture below the part's path, and those adapted are the ones
that the mapping of that architecture matches. Everything else stands as it was scanned.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ...catalog.lines import count_matches
from ...domain.architectures import ModelPart, describe_make_up
from ...domain.choosing.members import list_paths
from ...domain.choosing.slot_hits import count_hits
from ...domain.layers import Layer, Slot
from ...domain.mappings import Mapping, Verification
from ...domain.methods import get_method
from ...domain.patterns import OPEN, list_prefixes
from ...domain.selection import ROLE_ORDER, Choice, make_spec
from ...domain.targets import Formula, TargetSpec
from ...domain.vocabulary import Role, Status, Tower, count_layers, describe_slot, list_some
from ..db.encoding import digest_of

ORDER: tuple[Status, ...] = ("dead", "partial", "unproven")
"""Statuses of a composed mapping, the worst first: none is live, because the make-up itself was never run."""


@dataclass(frozen=True)
class Model:
    """An architecture as the registry knows it.

    Attributes:
        reference: Its reference.
        slots: Its slots.
        prefixes: Path prefixes of its towers.
        mapping: Its mapping for the method and preset of the lookup, if there is one.
    """

    reference: str
    slots: tuple[Slot, ...]
    prefixes: tuple[str, ...]
    mapping: Mapping | None = None

    @cached_property
    def base(self) -> str:
        """Path of its base model, which holds every tower; empty if that is the model itself."""
        segments = [prefix.split(".") for prefix in self.prefixes] or [[""]]
        equal = 0
        while all(len(one) > equal and one[equal] == segments[0][equal] for one in segments):
            equal += 1
        return ".".join(segments[0][:equal])

    @cached_property
    def matched(self) -> tuple[Slot, ...]:
        """The slots its mapping matches."""
        return match_slots(self.mapping.spec, self.slots) if self.mapping else ()

    def place(self, slots: Iterable[Slot], part: ModelPart) -> tuple[Slot, ...]:
        """Return slots of this model as those of a part; one built as a base model has no head."""
        base = f"{self.base}." if part.is_bare and self.base else ""
        inside = (slot for slot in slots if slot.pattern.startswith(base))
        return tuple(replace(slot, pattern=f"{part.prefix}.{slot.pattern.removeprefix(base)}") for slot in inside)


@dataclass(frozen=True)
class Exchange:
    """One part with another model than the default one.

    Attributes:
        part: The part, of the new type.
        before: The slots of the default model there.
        model: The new model.
        default: The default model, if the registry knows its slots.
    """

    part: ModelPart
    before: tuple[Slot, ...]
    model: Model
    default: Model | None = None

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The slots of the new model."""
        return self.model.place(self.model.slots, self.part)

    @cached_property
    def tower(self) -> Tower:
        """The tower of the part."""
        return Counter(slot.tower for slot in self.before).most_common(1)[0][0] if self.before else "main"

    @property
    def says(self) -> str:
        """The origin of its layers, in words."""
        mapping = self.model.mapping
        named = f"{mapping.source.kind} {mapping.source.version}" if mapping else "no entry"
        check = mapping.verification if mapping else None
        verdict = f", {check.status} on {check.library_version}" if check else ""
        return f"{self.part.name} model {self.part.model_type} as {self.model.reference} ({named}{verdict})"

    @property
    def is_misplaced(self) -> bool:
        """Whether no layer of the default model stands where it would be composed."""
        patterns = {slot.pattern for slot in self.before}
        placed = self.default.place(self.default.slots, self.part) if self.default else ()
        return not any(slot.pattern in patterns for slot in placed)

    @property
    def doubts(self) -> Iterator[str]:
        """The ways in which the layers of the part may differ from those of the new model alone, in words."""
        placed = self.default.place(self.default.slots, self.part) if self.default else self.before
        alone, there = ({slot.pattern for slot in slots} for slots in (placed, self.before))
        added, missing = sorted(there - alone), sorted(alone - there)
        if added:
            yield f"the default model has layers there that it has not alone, such as {list_some(added, 2)}"
        if missing:
            yield f"the default model lacks layers there ({self.part.class_name}): {list_some(missing, 2)}"
        check = self.model.mapping.verification if self.model.mapping else None
        stated = sum(count for kinds in check.counts.values() for count in kinds.values()) if check else 0
        whole = sum(slot.count for slot in self.model.matched)
        if check and stated < whole:
            yield f"the entry of {self.model.reference} leaves out {count_layers(whole - stated)} that are matched here"


@dataclass(frozen=True)
class Composition:
    """A composite architecture with some of its parts exchanged.

    Attributes:
        whole: The architecture with its default make-up.
        parts: The parts of the requested make-up.
        exchanges: The parts that differ.
    """

    whole: Model
    parts: tuple[ModelPart, ...]
    exchanges: tuple[Exchange, ...]

    @cached_property
    def kept(self) -> tuple[Slot, ...]:
        """The slots outside the exchanged parts."""
        gone = {slot.pattern for exchange in self.exchanges for slot in exchange.before}
        return tuple(slot for slot in self.whole.slots if slot.pattern not in gone)

    @cached_property
    def kept_matched(self) -> tuple[Slot, ...]:
        """The slots outside the exchanged parts that the default mapping matches."""
        return tuple(slot for slot in self.whole.matched if slot in self.kept)

    @cached_property
    def adapted(self) -> tuple[Exchange, ...]:
        """The exchanged parts in a tower that the default mapping adapts."""
        towers = {slot.tower for slot in self.whole.matched}
        return tuple(exchange for exchange in self.exchanges if exchange.tower in towers)

    @property
    def saved(self) -> tuple[str, ...]:
        """The modules that the default mapping saves, but for those inside an exchanged part."""
        gone = tuple(f"{exchange.part.prefix}." for exchange in self.exchanges)
        names = self.whole.mapping.modules_to_save if self.whole.mapping else None
        return tuple(name for name in names or () if not f"{name}.".startswith(gone))

    def match(self, exchange: Exchange) -> tuple[Slot, ...]:
        """Return the slots of an exchanged part to adapt: of the families of roles adapted outside it, if any are.

        A preset falls back to other roles where a whole model has none that it prefers, and not for a part of it.
        """
        found = exchange.model.place(exchange.model.matched, exchange.part)
        families = {slot.role.partition(".")[0] for slot in self.kept_matched}
        return tuple(slot for slot in found if not families or slot.role.partition(".")[0] in families)

    @cached_property
    def matched(self) -> tuple[Slot, ...]:
        """Every slot to adapt."""
        return (*(slot for exchange in self.adapted for slot in self.match(exchange)), *self.kept_matched)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """Every slot of the architecture with the parts exchanged."""
        return (*self.kept, *(slot for exchange in self.exchanges for slot in exchange.slots))


def compose(composition: Composition) -> Mapping | None:
    """Return the mapping of a composite architecture with parts exchanged; ``None`` if nothing is left to adapt."""
    whole, matched = composition.whole.mapping, composition.matched
    if whole is None or not matched:
        return None
    spec = _name_targets(composition, whole)
    deciding = [exchange.model.mapping for exchange in composition.adapted if exchange.model.mapping]
    first = deciding[0] if deciding else whole
    chosen = {part.name: part.model_type for part in composition.parts}
    return replace(
        whole,
        id=digest_of({"composed": whole.id, "parts": chosen, "spec": spec.values}),
        **spec.values,
        source=first.source,
        revision=first.revision,
        matched=sum(slot.count for slot in matched),
        formula=_sum_sizes(composition, deciding),
        coverage=(),
        reasons=tuple(_explain(composition)),
        verification=_verify(composition, spec, whole, deciding),
        versions=None,
        parts=composition.parts,
    )


def match_slots(spec: TargetSpec, slots: Iterable[Slot]) -> tuple[Slot, ...]:
    """Return the slots a spec matches whole, and those it matches in part; blocks that it leaves alone are apart."""
    slots = tuple(slots)
    return tuple(slot for slot, count in zip(slots, count_hits(spec, slots), strict=True) if count)


def as_layer(slot: Slot) -> Layer:
    """Return the first layer of a slot: that of the lowest indices on record."""
    path = next(list_paths(slot), slot.pattern.replace(OPEN, "0"))
    return Layer(path, slot.kind, "", (), role=slot.role, tower=slot.tower)


def _name_targets(composition: Composition, whole: Mapping) -> TargetSpec:
    """Return the shortest spec that matches exactly the slots to adapt."""
    method = get_method(whole.peft_type)
    fed = [*_find_fed(composition.whole, composition.kept_matched)]
    for exchange in composition.adapted:
        fed += exchange.model.place(_find_fed(exchange.model, exchange.model.matched), exchange.part)
    layers = tuple({slot.pattern: as_layer(slot) for slot in composition.matched}.values())
    fed_paths = {as_layer(slot).path for slot in fed}
    choice = Choice(
        method.family if method.family == "IA3" else method.name,
        layers,
        "",
        feedforward=tuple(layer for layer in layers if layer.path in fed_paths),
    )
    every = [as_layer(slot) for slot in composition.slots]
    modules = dict.fromkeys(
        path for layer in every if layer.kind != "expert_parameter" for path in list_prefixes(layer.path)
    )
    parameters = dict.fromkeys(layer.path for layer in every if layer.kind == "expert_parameter")
    spec = make_spec(choice, layers, tuple(modules), tuple(parameters), composition.saved)
    stated = [
        whole if composition.kept_matched else None,
        *(exchange.model.mapping for exchange in composition.adapted),
    ]
    left_out = dict.fromkeys(text for mapping in stated if mapping for text in mapping.exclude_blocks or ())
    return replace(spec, exclude_blocks=tuple(left_out) or None)


def _find_fed(model: Model, slots: Iterable[Slot]) -> tuple[Slot, ...]:
    """Return the slots that IA3 scales at the input."""
    fed = model.mapping.feedforward_modules if model.mapping else None
    return match_slots(TargetSpec(target_modules=fed), slots) if fed else ()


def _sum_sizes(composition: Composition, deciding: Sequence[Mapping]) -> Formula | None:
    """Return the size of an adapter, if every matched layer is of a model whose own size is known."""
    formulas = [mapping.formula for mapping in deciding if mapping.formula and not mapping.modules_to_save]
    if composition.kept_matched or not formulas or len(formulas) < len(composition.adapted):
        return None
    return Formula(sum(one.per_rank for one in formulas), sum(one.fixed for one in formulas))


def _explain(composition: Composition) -> Iterator[str]:
    """Yield the slots to adapt, their origin, the ways in which they may differ, and the make-up they hold for."""
    counts = Counter[tuple[str, Role]]()
    for slot in sorted(composition.matched, key=lambda slot: ROLE_ORDER[slot.role]):
        counts[slot.pattern, slot.role] += slot.count
    yield from (describe_slot(pattern, role, count) for (pattern, role), count in counts.items())
    for exchange in composition.exchanges:
        adapted = "adapted as there" if exchange in composition.adapted else "left alone, as the default model there"
        yield f"{exchange.says}, under {exchange.part.prefix}: {adapted}"
        yield from exchange.doubts
    yield f"holds for {describe_make_up(composition.parts)}"
    yield "numbers of layers and sizes are those of the default configuration of each model"


def _scan_command(composition: Composition) -> str:
    """Return the command that proves a make-up and stores it."""
    chosen = (f" --part {exchange.part.name}={exchange.part.model_type}" for exchange in composition.exchanges)
    name = composition.whole.reference.removeprefix("transformers:")
    return f"loradar scan {name}{''.join(chosen)} --prove --store"


def _verify(composition: Composition, spec: TargetSpec, whole: Mapping, deciding: Iterable[Mapping]) -> Verification:
    """Return the verification of a composed mapping: that of the mappings it is made of, and never ``live``."""
    stated = [mapping.verification for mapping in (*deciding, *([whole] if composition.kept_matched else []))]
    checks = [check for check in stated if check]
    statuses = {check.status for check in checks}
    composed = "; ".join(exchange.says for exchange in composition.exchanges)
    return Verification(
        status=next((status for status in ORDER if status in statuses), "unproven"),
        library_version=next((check.library_version for check in checks), ""),
        counts=count_matches(spec, composition.slots),
        reached=0.0,
        findings=(
            f"composed, not run: {composed}",
            f"run it with: {_scan_command(composition)}",
            "the share of the block parameters is not known",
            *dict.fromkeys(finding for check in checks for finding in check.findings),
        ),
    )
