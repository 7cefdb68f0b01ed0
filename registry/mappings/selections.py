"""Compute the mapping of a selection (towers, roles, blocks) from the slots of an architecture, on request.

A slot stands for its layers by the first of them, and by one for each block where blocks are selected. Slots hold
neither groups nor misfits: a layer may be selected if a stored mapping of the scanner, made from the layers themselves,
matches it; preset ``everything`` matches all that take an adapter.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

from sqlalchemy import Connection

from ...catalog.lines import count_matches
from ...domain.choosing.choose import Subject, choose
from ...domain.choosing.query import Selection
from ...domain.layers import Coverage, Layer, Slot
from ...domain.mappings import Mapping, Verification
from ...domain.methods import TARGETED, get_family, get_method, nothing_for
from ...domain.patterns import OPEN, list_prefixes, pattern_of
from ...domain.places import BlockPattern
from ...domain.presets import NEVER
from ...domain.scans import BY_COVERAGE, check_preset
from ...domain.selection import ROLE_ORDER, Choice, make_block_spec, make_spec
from ...domain.targets import Formula, TargetMatcher, TargetSpec, without_exclusion
from ...domain.vocabulary import CONV_KINDS, EVERYTHING, PRESETS, RANK, describe_slot
from ...errors import InvalidRequest, NotRegistered, UnknownPreset
from ..db.encoding import MappingKey, digest_of
from .composition import match_slots
from .listing import get_architecture, scan_command
from .ranking import Ranked, choose_within_budget
from .resolve import find_mapping, list_answering
from .stored_names import list_slots

MOST_INDICES = 64
"""Indices tried for layers that are members of a list themselves."""


@dataclass(frozen=True)
class Stored:
    """An architecture as the registry knows it.

    Attributes:
        reference: Its reference.
        slots: Its slots; each layer that is the member of a list has one of its own.
        mappings: The scanner's mapping of LoRA for each preset.
    """

    reference: str
    slots: tuple[Slot, ...]
    mappings: dict[str, Mapping]

    @property
    def first(self) -> Mapping:
        """Any of its mappings: all have the same blocks and saved modules."""
        return next(iter(self.mappings.values()))

    @cached_property
    def matched(self) -> dict[str, frozenset[Slot]]:
        """The slots that each mapping matches, by preset."""
        return {name: frozenset(match_slots(each.spec, self.slots)) for name, each in self.mappings.items()}

    @cached_property
    def counted(self) -> frozenset[Slot]:
        """The slots that a mapping matches whose sizes add up to its own: no convolution there has a gain."""
        slots = ((each, self.matched[name]) for name, each in self.mappings.items())
        exact = (own for each, own in slots if each.per_rank == sum(slot.per_rank or 0 for slot in own))
        return frozenset[Slot]().union(*exact)

    @cached_property
    def saved(self) -> int | None:
        """The parameters of the modules saved in full; ``None`` if no mapping tells them from those of gains."""
        if not self.first.modules_to_save:
            return 0
        plain = (each for name, each in self.mappings.items() if self.matched[name] <= self.counted)
        return next((each.fixed for each in plain), None)

    @cached_property
    def blocks(self) -> dict[str, int]:
        """The number of blocks by path pattern."""
        found: dict[str, int] = {}
        for each in self.first.coverage:
            pattern = each.block.partition(" ")[0]
            found[pattern] = found.get(pattern, 0) + each.of
        return found

    def block_of(self, slot: Slot) -> str:
        """Return the pattern of the innermost block around the layers of a slot; empty outside every block."""
        around = [p for p in list_prefixes(slot.pattern)[:-1] if pattern_of(p) in self.blocks]
        return around[-1] if around else ""

    def list_blocks(self, slot: Slot, *, by_block: bool) -> list[tuple[str, int]]:
        """Return the block pattern of a slot with the index of each of its blocks, or of the first alone."""
        block = self.block_of(slot)
        return [(block, index) for index in range(self.blocks[block] if by_block and block else 1)]

    def list_paths(self, *, by_block: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the paths of all modules on record, in each block or in the first, and those of bare parameters.

        Other members of a list, such as a dropout, are no layers and not on record: one stands for them, so that none
        is matched.
        """
        layers = [_as_layer(slot, *block) for slot in self.slots for block in self.list_blocks(slot, by_block=by_block)]
        named = [layer.path for layer in layers if layer.kind != "expert_parameter"]
        listed = [path.rpartition(".")[0] for path in named if path.rpartition(".")[2].isdecimal()]
        every = (*named, *(f"{path}.{MOST_INDICES}" for path in listed))
        bare = dict.fromkeys(layer.path for layer in layers if layer.kind == "expert_parameter")
        return tuple(dict.fromkeys(prefix for path in every for prefix in list_prefixes(path))), tuple(bare)

    def list_layers(self, by_block: Collection[str]) -> Iterator[tuple[Layer, Slot]]:
        """Yield a layer for each slot that takes an adapter, and one for each of its blocks in some towers.

        Raises:
            InvalidRequest: If the layers of each block cannot be told from the slots.
        """
        adaptable = frozenset[Slot]().union(*self.matched.values())
        namesakes = Counter[str]()  # layers of other roles under the same name are in other blocks
        for slot in self.slots:
            block = self.block_of(slot)
            first = namesakes[slot.pattern]
            namesakes[slot.pattern] += 1
            if slot not in adaptable and slot.role not in NEVER:
                continue
            if slot.tower not in by_block:
                yield _as_layer(slot, block, first), slot
                continue
            if block.count(OPEN) > 1:
                message = f"The blocks of {self.reference} stand in lists of lists, whose lengths are not on record."
                message += f" Scan it, with the same options: loradar scan {self.reference}."
                raise InvalidRequest(message, field="blocks", reference=self.reference)
            for each in self.list_blocks(slot, by_block=True):
                yield _as_layer(slot, *each), slot


def _as_layer(slot: Slot, block: str, index: int) -> Layer:
    """Return the layer of a slot in one block."""
    path = slot.pattern.replace(OPEN, str(index), 1).replace(OPEN, "0")
    around = ".".join(path.split(".")[: block.count(".") + 1]) if block else None
    facts = {
        "role": slot.role,
        "tower": slot.tower,
        "live": slot.live,
        "bypassed": slot.bypassed,
        "kernel": slot.kernel,
    }
    return Layer(path, slot.kind, "", (), block=around, depth=block.count(OPEN), **facts)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Selected:
    """The slots of a selection.

    Attributes:
        stored: The architecture.
        choice: Layers that stand for the slots.
        slots: The slots, in the order of the roles.
        by_block: Whether only some blocks are selected.
    """

    stored: Stored
    choice: Choice
    slots: tuple[Slot, ...]
    by_block: bool

    @property
    def spec(self) -> TargetSpec:
        """The shortest spec that matches exactly the slots; layers dead by their place are left out at any depth."""
        first = tuple(_as_layer(slot, self.stored.block_of(slot), 0) for slot in self.slots)
        choice = self.choice if self.by_block else replace(self.choice, layers=first)
        modules, bare = self.stored.list_paths(by_block=self.by_block)
        saved = self.stored.first.modules_to_save or ()
        if self.by_block:
            spec = make_block_spec(choice, modules, bare, saved)
        else:
            spec = make_spec(choice, choice.layers, modules, bare, saved)
        return replace(spec, exclude_blocks=tuple(self._list_dead_blocks()) or None)

    @property
    def namesakes(self) -> tuple[Slot, ...]:
        """The slots of other roles that have the same names in other blocks, so that no name tells them apart."""
        patterns = {slot.pattern for slot in self.slots}
        others = (slot for slot in self.stored.slots if slot.pattern in patterns and slot not in self.slots)
        return tuple(slot for slot in others if slot.live is not False)

    def _list_dead_blocks(self) -> Iterator[str]:
        """Yield the blocks that the stored mappings leave alone in the slots at any depth."""
        texts = dict.fromkeys(text for each in self.stored.mappings.values() for text in each.exclude_blocks or ())
        dead = [slot for slot in self.stored.slots if slot.live is False and slot.blocks]
        patterns = {slot.pattern for slot in self.slots}
        for text in texts:
            if any(BlockPattern.parse(text).is_of(x.pattern, x.blocks) for x in dead if x.pattern in patterns):
                yield text

    @property
    def formula(self) -> Formula | None:
        """The size of an adapter of LoRA, if it is on record."""
        slots, saved = (*self.slots, *self.namesakes), self.stored.saved
        is_known = all(x.kind not in CONV_KINDS or x in self.stored.counted for x in slots)
        if self.by_block or saved is None or not is_known or any(x.per_rank is None for x in slots):
            return None
        return Formula(sum(slot.per_rank or 0 for slot in slots), saved)

    @property
    def coverage(self) -> tuple[Coverage, ...]:
        """The blocks reached, of the kinds of which all or none are."""
        if self.by_block:
            return ()
        most: dict[str, int] = {}
        for slot in self.slots:
            block = self.stored.block_of(slot)
            most[block] = max(most.get(block, 0), slot.count)
        known = ((block, min(most.get(block, 0), count), count) for block, count in self.stored.blocks.items())
        return tuple(Coverage(block, hit, count) for block, hit, count in known if hit in (0, count))

    @property
    def reasons(self) -> Iterator[str]:
        """The slots in words, and what the record does not hold."""
        for slot in self.slots:
            text = describe_slot(slot.pattern, slot.role, slot.count)
            yield f"{text}, in some of its blocks" if self.by_block else text
        for slot in self.namesakes:
            text = describe_slot(slot.pattern, slot.role, slot.count)
            yield f"matched too, under the same name in other blocks: {text}; a scan of the model tells them apart"
        if self.by_block:
            yield "blocks are those of the scanned depth; get_peft_model counts those of the model at hand"
        elif self.formula is None:
            yield "the size is not on record: a scan of the model counts it"


def find_selected(
    connection: Connection, key: MappingKey, library_version: str | None, selection: Selection
) -> Mapping | None:
    """Return the mapping of a selection, or ``None`` if the architecture has no mapping to start from.

    Raises:
        UnknownArchitecture: If the registry does not know the architecture.
        UnknownName: If it lacks a tower.
        UnknownPreset: If the method has no such preset.
        NotRegistered: If the architecture was never scanned.
        InvalidRequest: If nothing is selected, or what is asked for needs the layers of a model.
    """
    method, reference = get_method(key.peft_type), f"{key.library}:{key.name}"
    if method.family != TARGETED:
        command = f"loradar scan {reference}"
        message = f"{method.name} mappings are selected on the layers of a model. Scan it, with the same options: "
        raise InvalidRequest(f"{message}{command}.", command=command)
    if method.name != TARGETED and (selection.expert_rank, selection.budget) != (None, None):
        raise nothing_for(method, reference, f"expert_rank and budget are counted for {TARGETED} alone")
    if selection.budget is not None:
        offers = [*_list_for_budget(connection, key, library_version, selection)]
        return choose_within_budget(reference, selection, offers) if offers else None
    if selection.is_whole:
        found = find_mapping(connection, key, library_version, selection)
        return replace(found, rank=selection.rank or RANK) if found else None
    ranked = _find_part(connection, key, library_version, selection)
    if ranked is None:
        return None
    if method.name != TARGETED:
        return ranked.mapping
    return ranked.at(ranked.make(selection, selection.rank or RANK))


def _find_part(
    connection: Connection, key: MappingKey, library_version: str | None, selection: Selection
) -> Ranked | None:
    """Return the mapping of a part of the layers, at the common rank, with its slots."""
    method = get_method(key.peft_type)
    stored = _read(connection, key, library_version)
    whole = find_mapping(connection, key._replace(peft_type=TARGETED, preset="default"), library_version)
    if whole is None:
        return None
    check_preset(stored.reference, key.preset, get_family(method.family).presets)
    selected, reasons = _select(stored, method.name, selection)
    spec, check = selected.spec, whole.verification
    finding = "selected from stored slots: the share of the block parameters is not known"
    mapping = replace(
        whole,
        id=digest_of({"selected": whole.id, "selection": str(selection), "spec": spec.values}),
        peft_type=method.name,
        preset=selection.preset,
        **(spec if method.exclusion else without_exclusion(spec)).values,
        source=stored.first.source,
        revision=stored.first.revision,
        matched=None if selected.by_block else sum(slot.count for slot in (*selected.slots, *selected.namesakes)),
        formula=selected.formula if method.sized_alike or method.name == TARGETED else None,
        coverage=selected.coverage,
        reasons=(*selected.reasons, selected.choice.why, *reasons),
        verification=Verification(
            "live" if all(slot.live for slot in selected.slots) else "unproven",
            check.library_version if check else "",
            {} if selected.by_block else count_matches(spec, (*selected.slots, *selected.namesakes)),
            0.0,
            (finding,),
        ),
        versions=None,
        rank=selection.rank or RANK,
        recommended=None,  # it is beside the layers of the whole mapping
    )
    return Ranked(mapping, (*selected.slots, *selected.namesakes), stored.slots)


def _list_for_budget(
    connection: Connection, key: MappingKey, library_version: str | None, selection: Selection
) -> Iterator[Ranked]:
    """Yield the mappings that may use a budget, the one with most layers first; a preset that is given alone."""
    shared = replace(selection, budget=None, expert_rank="shared", rank=None)
    is_given = selection.preset != "default" or bool(selection.roles)
    for preset in (selection.preset,) if is_given else BY_COVERAGE:
        own, wanted = key._replace(preset=preset), replace(shared, preset=preset)
        if selection.is_whole:
            found = find_mapping(connection, own, library_version, wanted)
            if found and found.spec.list_targets():
                slots = list_slots(connection, key.library, key.name)
                yield Ranked(found, match_slots(found.spec, slots), slots)
            continue
        with suppress(*(() if preset == selection.preset else (InvalidRequest, UnknownPreset))):
            ranked = _find_part(connection, own, library_version, wanted)
            if ranked:
                yield ranked


def _read(connection: Connection, key: MappingKey, library_version: str | None) -> Stored:
    """Return an architecture with the mappings of the scanner.

    Raises:
        NotRegistered: If it was never scanned.
        InvalidRequest: If its slots are of another version.
    """
    detail = get_architecture(connection, key.library, key.name)
    reference, version = f"{key.library}:{key.name}", detail.architecture.library_version
    mappings: dict[str, Mapping] = {}
    for preset in PRESETS:
        answering = list_answering(connection, key._replace(peft_type=TARGETED, preset=preset))
        scanned = next((mapping for mapping in answering if mapping.source.kind == "scanner"), None)
        mappings |= {preset: scanned} if scanned else {}
    if not detail.slots or not mappings:
        command = scan_command(key.library, key.name)
        message = f"{reference} was never scanned, so its layers are not known. Scan it with: {command} --prove."
        raise NotRegistered(key.name, (), message, library=key.library, command=command)
    if library_version not in (None, version):
        message = f"Layers of {reference} can be selected for {key.library} {version} alone, not for {library_version}."
        raise InvalidRequest(message, field="library_version", value=library_version)
    return Stored(reference, tuple(_name_listed(_merge(detail.slots), mappings.values())), mappings)


def _merge(slots: Iterable[Slot]) -> Iterator[Slot]:
    """Yield slots, those as one that differ in their layout or in the reasons of a verdict alone."""
    alike: defaultdict[tuple[object, ...], list[Slot]] = defaultdict(list)
    for slot in slots:
        alike[slot.tower, slot.role, slot.kind, slot.pattern, slot.live is False, slot.bypassed, slot.kernel].append(
            slot
        )
    for same in alike.values():
        sizes = [slot.per_rank for slot in same if slot.per_rank is not None]
        live = same[0].live if all(slot.live == same[0].live for slot in same) else None
        per_rank = sum(sizes) if len(sizes) == len(same) else None
        yield replace(same[0], count=sum(slot.count for slot in same), live=live, per_rank=per_rank)


def _name_listed(slots: Iterable[Slot], mappings: Iterable[Mapping]) -> Iterator[Slot]:
    """Yield slots, those of members of a list one by one, by the indices that stored mappings name."""
    matchers = [TargetMatcher(mapping.target_modules or ()) for mapping in mappings]
    for slot in slots:
        parent, _, leaf = slot.pattern.rpartition(".")
        indices = _find_indices(parent.replace(OPEN, "0"), matchers) if leaf == OPEN else ()
        for index in indices:  # they are selected together, so the first has the size of all
            size = slot.per_rank if index == indices[0] or slot.per_rank is None else 0
            yield replace(slot, pattern=f"{parent}.{index}", count=slot.count // len(indices), per_rank=size)
        if leaf != OPEN:
            yield slot


def _find_indices(parent: str, matchers: Sequence[TargetMatcher]) -> Sequence[int]:
    """Return the members of a list that any of the targets name."""
    return [n for n in range(MOST_INDICES) if any(matcher.find(f"{parent}.{n}") for matcher in matchers)]


def _select(stored: Stored, peft_type: str, selection: Selection) -> tuple[Selected, Sequence[str]]:
    """Return the slots of a selection, and reasons."""
    by_block, method = selection.blocks is not None, get_method(peft_type)
    focus = frozenset(x.tower for name in stored.matched if name != EVERYTHING for x in stored.matched[name])
    towers = {x.tower for x in stored.slots} if "all" in selection.towers else {*selection.towers} or focus
    pairs = [*stored.list_layers(towers if by_block else ())]
    slot_of = {layer.path: slot for layer, slot in pairs}
    own = tuple(layer for layer, slot in pairs if slot in stored.matched.get(selection.preset, ()))
    why, preset = f"those of preset {selection.preset!r}", selection.preset
    subject = Subject(
        reference=stored.reference,
        layers=tuple(layer for layer, _ in pairs),
        focus=focus,
        apart=stored.first.modules_to_save or (),
        plain=Choice(TARGETED, own, why, preset) if own else None,  # type: ignore[arg-type]  # among PRESETS
        counts=None if by_block else {layer.path: slot.count for layer, slot in pairs},
    )
    choice, reasons = choose(subject, selection)
    choice = choice.keeping({layer.path for layer in choice.layers if method.fits(layer.kind)})
    slots = sorted(dict.fromkeys(slot_of[x.path] for x in choice.layers), key=lambda slot: ROLE_ORDER[slot.role])
    return Selected(stored, choice, tuple(slots), by_block), reasons
