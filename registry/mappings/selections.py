"""Compute the mapping of a selection (towers, roles, blocks) or a budget on request, from the slots of an architecture.

Slots hold the layers one by one, but not the parts that are trained apart: a layer may be selected if a stored mapping
of the scanner, made from the model itself, matches it; preset ``everything`` matches all that take an adapter.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sqlalchemy import Connection

from ...domain.choosing.choose import Subject, choose
from ...domain.choosing.members import NO_FIT
from ...domain.choosing.query import Selection
from ...domain.choosing.recommendations import advise, read_rules
from ...domain.choosing.stored_layers import StoredLayers
from ...domain.layers import Blocks, Layer
from ...domain.mappings import Mapping, Recommendation, Verification
from ...domain.methods import TARGETED, get_family, get_method, nothing_for
from ...domain.patterns import OPEN, list_prefixes, pattern_of
from ...domain.presets import NEVER
from ...domain.scans import BY_COVERAGE, check_preset
from ...domain.selection import Choice, describe_blocks, describe_slots, make_block_spec, make_spec
from ...domain.targets import Formula, TargetMatcher, TargetSpec, find_hits, without_exclusion
from ...domain.vocabulary import EVERYTHING, PRESETS, RANK, RECOMMENDED, STANDS_FOR
from ...errors import InvalidRequest, NotRegistered, UnknownPreset
from ..db.encoding import MappingKey, digest_of
from ..servable import list_served
from .listing import get_architecture, scan_command
from .ranking import Counted, choose_within_budget
from .resolve import find_mapping, list_answering
from .stored_names import list_slots


@dataclass(frozen=True)
class Stored:
    """An architecture as the registry knows it.

    Attributes:
        reference: Its reference.
        every: Its layers.
        mappings: The scanner's mapping of LoRA for each preset.
        class_name: The class that was scanned.
    """

    reference: str
    every: StoredLayers
    mappings: dict[str, Mapping]
    class_name: str | None = None

    @property
    def first(self) -> Mapping:
        """Any of its mappings: all have the same blocks and saved modules."""
        return next(iter(self.mappings.values()))

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Its layers with their blocks, in the order of the slots."""
        blocks = {each.block.partition(" ")[0] for each in self.first.coverage}
        return tuple(_in_block(layer, blocks) for layer in self.every.sizes)

    @cached_property
    def matched(self) -> dict[str, tuple[Layer, ...]]:
        """The layers that each mapping matches, by preset."""
        return {name: find_hits(mapping.spec, self.layers) for name, mapping in self.mappings.items()}

    @property
    def selectable(self) -> tuple[Layer, ...]:
        """The layers, with a misfit where no mapping matches them and no role tells why."""
        adaptable = {layer.path for layers in self.matched.values() for layer in layers}
        return tuple(
            x if x.path in adaptable or x.role in NEVER else replace(x, misfit=x.misfit or NO_FIT) for x in self.layers
        )

    def size(self, layers: Sequence[Layer]) -> Formula:
        """Return the size of an adapter of LoRA on some of the layers, with the modules that are saved in full."""
        name, mapping = next(iter(self.mappings.items()))
        own = self._sum(self.matched[name])
        found = self._sum(layers)
        return Formula(found.per_rank, found.fixed + (mapping.fixed or 0) - own.fixed)

    def recommend(self, layers: Sequence[Layer], known: Recommendation) -> Recommendation:
        """Return what is recommended beside some of the layers, given what is beside others."""
        best = self.matched.get(RECOMMENDED) or self.matched[STANDS_FOR[RECOMMENDED]]
        chosen, wanted = {layer.path for layer in layers}, {layer.path for layer in best}
        more = dict.fromkeys(layer.role for layer in best if layer.path not in chosen)
        less = dict.fromkeys(layer.role for layer in layers if layer.path not in wanted)
        return advise(read_rules()[known.family], [*more], [*less], known.formula)

    def _sum(self, layers: Sequence[Layer]) -> Formula:
        paths = {layer.path for layer in layers}
        sizes = [size for layer, size in self.every.sizes.items() if size and layer.path in paths]
        return Formula(sum(size.per_rank for size in sizes), sum(size.fixed for size in sizes))


def _in_block(layer: Layer, blocks: set[str]) -> Layer:
    """Return a layer with the innermost block around it, by the patterns of blocks."""
    around = [prefix for prefix in list_prefixes(layer.path)[:-1] if pattern_of(prefix) in blocks]
    return replace(layer, block=around[-1], depth=pattern_of(around[-1]).count(OPEN)) if around else layer


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
    if method.name != TARGETED and (selection.rank, selection.expert_rank, selection.budget) != (None, None, None):
        raise nothing_for(method, reference, f"rank, expert_rank and budget are counted for {TARGETED} alone")
    if method.family != TARGETED:
        command = f"loradar scan {reference}"
        message = f"{method.name} mappings are selected on the layers of a model. Scan it, with the same options: "
        raise InvalidRequest(f"{message}{command}.", command=command)
    if selection.budget is not None:
        offers = [*_list_for_budget(connection, key, library_version, selection)]
        return choose_within_budget(reference, selection, offers) if offers else None
    if selection.is_whole:
        found = find_mapping(connection, key, library_version, selection)
        return replace(found, rank=selection.rank or RANK) if found else None
    counted = _find_part(connection, key, library_version, selection)
    if counted is None:
        return None
    if method.name != TARGETED:
        return replace(counted.mapping, served=())
    found = counted.at(counted.make(selection, selection.rank or RANK))
    class_name = get_architecture(connection, key.library, key.name).architecture.class_name
    return replace(found, served=list_served(found, class_name, ((layer.path, layer) for layer in counted.layers)))


def _find_part(
    connection: Connection, key: MappingKey, library_version: str | None, selection: Selection
) -> Counted | None:
    """Return the mapping of a part of the layers, at the common rank."""
    method = get_method(key.peft_type)
    stored = _read(connection, key, library_version)
    whole = find_mapping(connection, key._replace(peft_type=TARGETED, preset="default"), library_version)
    if whole is None:
        return None
    check_preset(stored.reference, key.preset, get_family(method.family).presets)
    choice, reasons = _select(stored, method.name, selection)
    saved, paths = stored.first.modules_to_save or (), (stored.every.modules, stored.every.bare)
    if selection.blocks:
        spec = make_block_spec(choice, *paths, saved)
        reasons = (*reasons, "blocks are those of the scanned depth; get_peft_model counts those of the model at hand")
    else:
        spec = make_spec(choice, stored.layers, *paths, saved)
        reasons = (*reasons, *_describe_apart(choice, stored.layers))
    check = whole.verification
    finding = "selected from stored slots: the share of the block parameters is not known"
    mapping = replace(
        whole,
        id=digest_of({"selected": whole.id, "selection": str(selection), "spec": spec.values}),
        peft_type=method.name,
        preset=selection.preset,
        **(spec if method.exclusion else without_exclusion(spec)).values,
        source=stored.first.source,
        revision=stored.first.revision,
        matched=len(choice.layers),
        formula=stored.size(choice.layers) if method.sized_alike or method.name == TARGETED else None,
        coverage=Blocks(stored.layers).cover(choice.layers),
        reasons=(*describe_slots(choice), choice.why, *describe_blocks(spec), *reasons),
        verification=Verification(
            "live" if all(layer.live for layer in choice.layers) else "unproven",
            check.library_version if check else "",
            _count_targets(spec, choice.layers),
            0.0,
            (finding,),
        ),
        versions=None,
        rank=selection.rank or RANK,
        recommended=whole.recommended and stored.recommend(choice.layers, whole.recommended),
    )
    return Counted(mapping, stored.every)


def _describe_apart(choice: Choice, layers: Sequence[Layer]) -> Iterator[str]:
    """Yield a reason if layers of other roles have the names of the chosen ones in other blocks."""
    chosen = {layer.path for layer in choice.layers}
    patterns = {pattern_of(path) for path in chosen}
    others = [x for x in layers if x.path not in chosen and pattern_of(x.path) in patterns and x.live is not False]
    if others:
        roles = ", ".join(dict.fromkeys(layer.role for layer in others))
        yield f"blocks are those of the scanned depth: others have layers of the same names ({roles})"


def _count_targets(spec: TargetSpec, layers: Sequence[Layer]) -> dict[str, dict[str, int]]:
    """Return the layers that each target matches, by kind."""
    counts: dict[str, dict[str, int]] = {target: {} for target in spec.list_targets()}
    modules, bare = TargetMatcher(spec.target_modules or ()), TargetMatcher(spec.target_parameters or ())
    for layer in layers:
        target = (bare if layer.kind == "expert_parameter" else modules).find(layer.path)
        if target is not None:
            counts[target][layer.kind] = counts[target].get(layer.kind, 0) + 1
    return counts


def _list_for_budget(
    connection: Connection, key: MappingKey, library_version: str | None, selection: Selection
) -> Iterator[Counted]:
    """Yield the mappings that may use a budget, the one with most layers first; a preset that is given alone."""
    shared = replace(selection, budget=None, expert_rank="shared", rank=None)
    is_given = selection.preset != "default" or bool(selection.roles)
    for preset in (selection.preset,) if is_given else BY_COVERAGE:
        own, wanted = key._replace(preset=preset), replace(shared, preset=preset)
        try:
            counted = _find_counted(connection, own, library_version, wanted)
        except (InvalidRequest, UnknownPreset):
            if preset == selection.preset:
                raise
            continue  # a preset without layers in the selection: another one may have some
        if counted:
            yield counted


def _find_counted(
    connection: Connection, key: MappingKey, library_version: str | None, selection: Selection
) -> Counted | None:
    """Return the mapping of a selection at the common rank, with its layers; ``None`` without a target."""
    if not selection.is_whole:
        return _find_part(connection, key, library_version, selection)
    found = find_mapping(connection, key, library_version, selection)
    if not found or not found.spec.list_targets():
        return None
    return Counted(found, StoredLayers(list_slots(connection, key.library, key.name)))


def _read(connection: Connection, key: MappingKey, library_version: str | None) -> Stored:
    """Return an architecture with the mappings of the scanner.

    Raises:
        NotRegistered: If it was never scanned, or by a version that did not record its layers one by one.
        InvalidRequest: If its slots are of another version.
    """
    detail = get_architecture(connection, key.library, key.name)
    reference, version = f"{key.library}:{key.name}", detail.architecture.library_version
    mappings: dict[str, Mapping] = {}
    for preset in PRESETS:
        answering = list_answering(connection, key._replace(peft_type=TARGETED, preset=preset))
        scanned = next((mapping for mapping in answering if mapping.source.kind == "scanner"), None)
        mappings |= {preset: scanned} if scanned else {}
    layers, command = StoredLayers(detail.slots), scan_command(key.library, key.name)
    if not detail.slots or not mappings:
        message = f"{reference} was never scanned, so its layers are not known. Scan it with: {command} --prove."
        raise NotRegistered(key.name, (), message, library=key.library, command=command)
    if not layers.is_known:
        message = f"The layers of {reference} are not on record one by one. Scan it anew with: {command} --prove."
        raise NotRegistered(key.name, (), message, library=key.library, command=command)
    if library_version not in (None, version):
        message = f"Layers of {reference} can be selected for {key.library} {version} alone, not for {library_version}."
        raise InvalidRequest(message, field="library_version", value=library_version)
    return Stored(reference, layers, mappings, detail.architecture.class_name)


def _select(stored: Stored, peft_type: str, selection: Selection) -> tuple[Choice, tuple[str, ...]]:
    """Return the layers of a selection, with reasons."""
    method, own = get_method(peft_type), stored.matched.get(selection.preset, ())
    why, preset = f"those of preset {selection.preset!r}", selection.preset
    subject = Subject(
        reference=stored.reference,
        layers=stored.selectable,
        focus=frozenset(x.tower for name in stored.matched if name != EVERYTHING for x in stored.matched[name]),
        apart=stored.first.modules_to_save or (),
        plain=Choice(TARGETED, own, why, preset) if own else None,  # type: ignore[arg-type]  # among PRESETS
        class_name=stored.class_name,
    )
    choice, reasons = choose(subject, selection)
    return choice.keeping({x.path for x in choice.layers if method.fits(x.kind, x.groups)}), reasons
