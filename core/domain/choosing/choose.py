"""Choose the layers of a selection, with reasons for what is selected and what is left out."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ...errors import InvalidRequest, UnknownName
from ..layers import Layer
from ..methods import TARGETED
from ..patterns import pattern_of
from ..presets import (
    ADAPTABLE_KINDS,
    ADDED,
    NEVER,
    WHOLE,
    choose_in_each_tower,
    choose_lora,
    is_adaptable,
    is_reached,
    without_parts,
)
from ..selection import Choice, include_siblings
from ..serving import Engine, assess, find_outcomes, get_engine
from ..vocabulary import EVERYTHING, RECOMMENDED, Preset, Role, count_layers
from .query import BlockChoice, Selection, join_indices
from .recommendations import choose_recommended
from .stacks import find_positions


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to choose layers of.

    Attributes:
        reference: Its name, for messages.
        layers: Its labelled layers.
        focus: The towers that presets adapt.
        apart: Paths of the parts that are trained apart from the model, and of the modules that are saved in full.
        plain: The choice of the method and preset for the model as a whole; ``None`` if it was not proposed.
        class_name: The class of the model.
    """

    reference: str
    layers: tuple[Layer, ...]
    focus: frozenset[str]
    apart: tuple[str, ...] = ()
    plain: Choice | None = None
    class_name: str | None = None


def choose(subject: Subject, selection: Selection) -> tuple[Choice, tuple[str, ...]]:
    """Return the layers of a selection, with reasons for what is selected and what is left out.

    Raises:
        UnknownName: If the model lacks a tower.
        InvalidRequest: If the selection matches no layer.
    """
    towers = _find_towers(subject, selection)
    inside = without_parts([layer for layer in subject.layers if layer.tower in towers])
    chosen = _choose_by_preset(subject, selection, inside)
    if not chosen.layers:
        raise _nothing_selected(subject, selection, inside)
    reasons = [f"selected: {selection}"]
    if selection.servable:
        chosen, unserved = _narrow_to_served(chosen, subject, get_engine(selection.servable))
        reasons += unserved
    if selection.blocks:
        chosen, blocks = _narrow_to_blocks(chosen, subject, selection.blocks)
        reasons += blocks
    left = sorted({layer.tower for layer in subject.layers} - {layer.tower for layer in chosen.layers})
    reasons += [f"left alone: {', '.join(left)}"] if left else []
    return chosen, (*reasons, *_describe_left_out(chosen, inside), _describe_proof(chosen.layers))


def _narrow_to_served(choice: Choice, subject: Subject, engine: Engine) -> tuple[Choice, list[str]]:
    """Return the part of a choice whose adapters an engine applies, with what it leaves out as reasons.

    Raises:
        InvalidRequest: If it applies none.
    """
    whole = assess(engine, subject.class_name, ())
    found = find_outcomes(engine, subject.class_name, ((layer.path, layer) for layer in choice.layers))
    outcomes = {layer: found[pattern_of(layer.path)] for layer in choice.layers}
    kept = {layer.path for layer, (outcome, _) in outcomes.items() if outcome == "applies"}
    if whole.outcome == "rejects" or not kept:
        why = whole.text if whole.outcome == "rejects" else "it applies adapters on none of these layers"
        message = f"{subject.reference} has no adapter that {engine.label} serves: {why}."
        raise InvalidRequest(message, field="servable", value=engine.key)
    left = Counter((pattern_of(x.path), *why) for x, why in outcomes.items() if x.path not in kept)
    reasons = [
        f"left out: {engine.label} {outcome} an adapter on {path} ({count_layers(count)}): {why}"
        for (path, outcome, why), count in left.items()
    ]
    doubt = [f"{engine.label} {whole.text}"] if whole.outcome == "unknown" else []
    return choice.keeping(kept), [*doubt, *reasons]


def _find_towers(subject: Subject, selection: Selection) -> frozenset[str]:
    """Return the towers of a selection."""
    own = dict.fromkeys(layer.tower for layer in subject.layers if layer.kind != "norm")
    for name in selection.towers:
        if name != "all" and name not in own:
            raise UnknownName(name, own, f"{subject.reference} has the towers: {', '.join(own)}.", field="towers")
    if "all" in selection.towers or (selection.preset == EVERYTHING and not selection.towers):
        return frozenset(own)
    return frozenset(selection.towers) or subject.focus


def _choose_by_preset(subject: Subject, selection: Selection, inside: Sequence[Layer]) -> Choice:
    """Return the layers of the preset in the towers, of the roles alone, or of both."""
    preset: Preset = selection.preset  # type: ignore[assignment]  # whoever asks knows the presets of the method
    with_roles = tuple(layer for layer in inside if selection.has_role(layer.role))
    if selection.roles and preset == "default" and (subject.plain is None or subject.plain.family == TARGETED):
        found = _list_candidates(subject, with_roles, frozenset())
        return Choice(TARGETED, found, f"every layer with a role of {', '.join(selection.roles)}", preset)
    plain = subject.plain
    if plain and (plain.family != TARGETED or not selection.towers):  # other methods have layers of their own
        choice = plain.keeping({layer.path for layer in inside})
    else:
        choice = _apply_preset(subject, preset, inside)
    if not selection.roles:
        return choice
    kept = choice.keeping({layer.path for layer in with_roles})
    return replace(kept, why=f"{choice.why}; of these every {', '.join(selection.roles)}")


def _apply_preset(subject: Subject, preset: Preset, inside: Sequence[Layer]) -> Choice:
    """Return the layers of a preset in each of the towers."""
    never = NEVER if preset == EVERYTHING else NEVER | ADDED
    candidates = _list_candidates(subject, inside, never)
    if preset == EVERYTHING or not candidates:
        return Choice(TARGETED, candidates, "every layer that takes an adapter, also outside blocks", preset)
    choice = choose_in_each_tower(candidates, partial(_choose_in_tower, subject=subject, preset=preset))
    return include_siblings(choice, candidates, subject.layers) if preset in WHOLE else choice


def _choose_in_tower(layers: Sequence[Layer], subject: Subject, preset: Preset) -> Choice:
    """Return the layers of a preset in one tower: of one that presets adapt anyway, those that they adapt there.

    A projector without a network is adapted whole or not at all.
    """
    plain = subject.plain.keeping({layer.path for layer in layers}) if subject.plain else None
    if plain and plain.layers:
        return plain
    if preset in WHOLE and all(layer.role == "projector" for layer in layers):
        return Choice(TARGETED, tuple(layers), "every layer of the projector", preset)
    return choose_recommended(layers, subject.layers) if preset == RECOMMENDED else choose_lora(layers, preset)


def _list_candidates(subject: Subject, inside: Iterable[Layer], never: frozenset[Role]) -> tuple[Layer, ...]:
    """Return the layers that may be chosen: adaptable, not apart, and where presets of these roles adapt layers.

    Presets adapt the blocks of a tower, or a tower without any as a whole. A projector is one by its role.
    """
    with_blocks = {layer.tower for layer in subject.layers if layer.depth}
    found = []
    for layer in inside:
        own = never - {"projector"} if layer.tower == "projector" else never
        is_inside = bool(layer.depth) or layer.tower not in with_blocks or layer.role in ADDED | NEVER
        is_apart = any(f".{path}." in f".{layer.path}." for path in subject.apart)
        if is_inside and not is_apart and is_adaptable(layer, own):
            found.append(layer)
    return tuple(found)


def _nothing_selected(subject: Subject, selection: Selection, inside: Iterable[Layer]) -> InvalidRequest:
    """Return the error for a selection without layers, with the roles there are."""
    roles = Counter(layer.role for layer in _list_candidates(subject, inside, NEVER))
    there = ", ".join(f"{role} ({count})" for role, count in sorted(roles.items())) or "no layer that takes an adapter"
    message = f"{subject.reference} has no layer for {selection}. Layers there, by role: {there}."
    return InvalidRequest(message, reference=subject.reference, roles=dict(roles))


def _describe_left_out(choice: Choice, inside: Sequence[Layer]) -> list[str]:
    """Return reasons with the numbers of the layers in the same towers that are not chosen, by role."""
    chosen, towers = {layer.path for layer in choice.layers}, {layer.tower for layer in choice.layers}
    others = [x for x in inside if x.tower in towers and x.path not in chosen and x.kind in ADAPTABLE_KINDS]
    roles = Counter[str]()
    for layer in others:
        fits = is_reached(layer) and layer.misfit is None
        roles[layer.role if fits else ""] += 1
    unfit = roles.pop("", 0)
    listed = ", ".join(count_layers(count, role) for role, count in sorted(roles.items()))
    return [
        *([f"left out: {listed}"] if listed else ()),
        *([f"left out: {count_layers(unfit)} that no gradient reaches or no adapter fits"] if unfit else ()),
    ]


def _describe_proof(layers: Sequence[Layer]) -> str:
    """Return how many layers were proved live, and the towers of the others."""
    unproven = [layer for layer in layers if layer.live is not True]
    if not unproven:
        return f"proved live: {count_layers(len(layers))}, each by a training step"
    towers = ", ".join(dict.fromkeys(layer.tower for layer in unproven))
    return f"unproven: {count_layers(len(unproven))} of {len(layers)} ({towers}), which no proof has trained yet"


def _narrow_to_blocks(choice: Choice, subject: Subject, blocks: BlockChoice) -> tuple[Choice, list[str]]:
    """Return the part of a choice that stands in some blocks, with the blocks of each stack as reasons.

    Raises:
        InvalidRequest: If there is none; lists the blocks that hold layers of the choice.
    """
    known = find_positions(subject.layers)
    positions = {layer.path: known[layer.path] for layer in choice.layers if layer.path in known}
    held: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
    for at in positions.values():
        held[at.stack, at.depth].add(at.number)
    chosen = {stack: held[stack, depth] & blocks.list_in(depth) for stack, depth in held}
    kept = {path for path, at in positions.items() if at.number in chosen[at.stack]}
    if not kept:
        there = "; ".join(f"{join_indices(numbers)} of {depth} in {stack}" for (stack, depth), numbers in held.items())
        message = (
            f"blocks={blocks.says!r} holds none of the layers selected in {subject.reference}, which are in blocks "
        )
        raise InvalidRequest(f"{message}{there or 'nowhere: it has none'}.", field="blocks", value=blocks.says)
    outside = len(choice.layers) - len(positions)
    reasons = [f"blocks {join_indices(chosen[stack]) or 'none'} of {depth} in {stack}, from 0" for stack, depth in held]
    reasons += [f"left out: {count_layers(outside)} outside blocks"] if outside else []
    return choice.keeping(kept), reasons
