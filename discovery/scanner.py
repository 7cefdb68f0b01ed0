"""The scan of a model or a reference: layers, roles, evidence, slots and proposals, top to bottom."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..domain.architectures import name_make_up, split_make_up
from ..domain.choosing.members import write_members
from ..domain.layers import Layer, Slot
from ..domain.patterns import pattern_of
from ..domain.presets import ADAPTABLE_KINDS, is_adaptable
from ..domain.scans import Scan
from ..domain.selection import count_gains, size_per_rank
from ..domain.vocabulary import count_of, list_some
from ..errors import InvalidReference, InvalidRequest, NoAdaptableLayers, ScanFailed, quoted
from ..references import Reference
from . import sources
from .branches import state_branches
from .dataflow import Trace, trace
from .facts.frozen import find_frozen
from .facts.layers import Site, list_layers, walk
from .facts.misfits import holds_unfitting, list_unfitting
from .facts.model_facts import ModelFacts, collect_facts, is_configuration, is_of_transformers
from .facts.parts import list_parts
from .facts.prompt_facts import read_prompt_facts
from .facts.towers import TowerMap, list_prefixes, map_towers
from .facts.wrapped import check_readable, list_compiled, list_packed, own_class, shape_of, unwrap
from .fingerprint import digest_build, fingerprint, structure
from .focus import Focus, find_focus
from .liveness import Proof, Recall, apply_proof, prove_any, recall_proof
from .merged_roles import label_traced_heads, list_untraced, mark_unlearning, merge
from .meta_run import running
from .meta_run.conditions import TimeLimit
from .names.heads import guesses_heads
from .names.static_roles import label_layer, label_layers
from .names.surroundings import Surroundings
from .proposals import Subject, propose_all
from .saved_modules import Saved, find_saved
from .small_builds import Builds, list_builds

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

METHODS = ("auto", "dataflow", "names")


def scan_built(
    model_or_reference: "nn.Module | PreTrainedConfig | str",
    example_inputs: Any = None,
    method: str = "auto",
    *,
    proved: bool = False,
) -> Scan:
    """Scan a model, a configuration, or a reference of which a model can be built, as ``scan``."""
    if method not in METHODS:
        message = f"Unknown method {method!r}. Methods: {quoted(METHODS)}."
        raise InvalidRequest(message, method=method)
    model = build_subject(model_or_reference)
    builds = partial(list_builds, model_or_reference, model) if proved else None
    result = scan_module(model, example_inputs, method, builds)
    reference = Reference.parse(model_or_reference) if isinstance(model_or_reference, str) else None
    if reference is None or reference.scheme != "transformers":
        return result
    plain, chosen = split_make_up(reference.name)
    if chosen:  # an architecture of its own, so that it does not replace the one with the default parts
        named = replace(result.architecture, name=name_make_up(plain, chosen))
        result = replace(result, architecture=named)
    return state_branches(result, reference.name, lambda branch: read_model(branch).label_all())


def scan_module(
    model: nn.Module,
    example_inputs: Any = None,
    method: str = "auto",
    builds: Builds | None = None,
    recall: Recall | None = None,
) -> Scan:
    """Scan a live module as ``scan`` does.

    ``builds`` makes small real builds of the model, given its layers, to prove them on. ``recall`` finds the record of
    its architecture; a proof of a model built alike holds for this one.
    """
    try:
        return _scan_module(model, example_inputs, method, builds, recall)
    except RuntimeError as error:  # attributes of a user's module may be properties that fail, or recur for ever
        raise unreadable(model, error) from error


def _scan_module(
    model: nn.Module, example_inputs: Any, method: str, builds: Builds | None, recall: Recall | None
) -> Scan:
    static = read_model(model)
    facts, architecture = static.facts, static.facts.architecture
    layers = static.label_all()
    limit = TimeLimit(running.SECONDS)
    traced = trace(model, layers, static.module_paths, example_inputs) if method != "names" else None
    is_cut_short = limit.left <= 0
    if not any(layer.kind in ADAPTABLE_KINDS for layer in (*layers, *(traced.bare if traced else ()))):
        raise _nothing_to_adapt(model, static)
    if traced is None and method == "dataflow":
        message = f"No forward of {architecture.reference} runs. Give example_inputs, or scan it by names."
        raise ScanFailed(message, reference=architecture.reference)
    layers = _merge_roles(static, layers, traced) if traced else layers
    proof = _prove(static, layers, builds) if builds else None
    proof = proof or (recall_proof(recall, model, architecture, layers) if recall else None)
    is_cut_short = is_cut_short or (proof is not None and proof.is_cut_short)
    layers = apply_proof(layers, proof) if proof else layers
    layers = mark_unlearning(layers, find_frozen(layers, static.sites), traced)
    untraced = list_untraced(layers)
    whole = traced if not untraced else None
    subject = _make_subject(model, static, layers, find_focus(facts, static.towers, traced), traced)
    return Scan(
        architecture=replace(
            architecture, fingerprint=fingerprint(layers), structure=structure(layers) if whole else None
        ),
        method="dataflow" if traced else "names",
        layers=layers,
        towers=list_prefixes(static.towers),
        slots=make_slots(layers, static.parameter_paths),
        proposals=propose_all(subject),
        frozen=subject.saved.frozen,
        left_out=subject.left_out,
        module_paths=static.module_paths,
        beside=subject.beside,
        digest=digest_build(static.classes, layers, whole.operations) if whole and not is_cut_short else None,
        untraced=untraced,
        proof=proof.says if proof else None,
        is_cut_short=is_cut_short,
        prompt_facts=read_prompt_facts(facts.configuration, layers, model, traced.active_experts if traced else None),
        parts=list_parts(model, facts),
    )


def _prove(static: "StaticModel", layers: tuple[Layer, ...], builds: Builds) -> Proof:
    """Prove the layers that may be adapted on builds that have all of them but bare matrices, which a forward shows."""
    built = {layer.path for layer in static.layers}
    adaptable = {pattern_of(layer.path) for layer in layers if is_adaptable(layer)}
    return prove_any(builds([layer for layer in layers if layer.path in built]), adaptable)


def _merge_roles(static: "StaticModel", layers: tuple[Layer, ...], traced: Trace) -> tuple[Layer, ...]:
    """Return the layers with the roles of names and trace; heads are not guessed where a forward shows them."""
    traced = replace(traced, bare=tuple(replace(x, tower=static.towers.find(x.path)) for x in traced.bare))
    if traced.ends is None:
        return merge(layers, traced)
    unguessed = static.label(static.layers) if static.guesses_heads else layers
    merged = merge(unguessed, traced)
    return label_traced_heads(merged, traced.ends, static.facts, has_others=static.has_others)


def _nothing_to_adapt(model: nn.Module, static: "StaticModel") -> NoAdaptableLayers:
    """Return the error for a model without a layer for an adapter, with what it holds."""
    reference, paths = static.facts.architecture.reference, static.module_paths
    holders = (site.module for site in static.sites if next(site.module.parameters(recurse=False), None) is not None)
    classes = [name for name, _ in Counter(own_class(module).__name__ for module in holders).most_common(5)]
    held = f"weights are held by {', '.join(classes)}" if classes else "none holds a weight"
    message = f"{reference} has no layer an adapter could sit on ({len(paths)} modules; {held})."
    bare = [
        f"{site.path}.{name}"
        for site in static.sites
        for name, parameter in site.module._parameters.items()
        if site.path and parameter is not None and parameter.ndim == 2  # noqa: PLR2004 - a matrix
    ]
    if bare:
        message = f"{message} target_parameters adapts a bare matrix by its name: {list_some(map(repr, bare))}."
    if packed := list_packed(model):
        message = f"{message} Quantised ones are packed, and pass no gradient ({list_some(packed)}): adapt it before."
    if isinstance(model, torch.fx.GraphModule):
        message = f"{message} A graph calls functions: scan the model that it was exported from."
    return NoAdaptableLayers(message, reference=reference, classes=classes)


def make_slots(layers: Sequence[Layer], parameter_paths: Iterable[str] = ()) -> tuple[Slot, ...]:
    """Group labelled layers into slots with counts and sizes, in the order in which the model holds them."""
    slots: dict[Slot, list[Layer]] = {}
    for x in layers:
        facts = (x.layout, x.bypassed, x.kernel, x.live, x.proof, x.blocks)
        slots.setdefault(Slot(x.tower, x.role, x.kind, pattern_of(x.path), 0, *facts), []).append(x)
    gains = count_gains(layers, parameter_paths)
    sizes = {
        slot: sum(map(size_per_rank, found)) if slot.kind in ADAPTABLE_KINDS else None for slot, found in slots.items()
    }
    return tuple(
        replace(slot, count=len(found), per_rank=sizes[slot], members=write_members(found, gains))
        for slot, found in slots.items()
    )


def _make_subject(
    model: nn.Module, static: "StaticModel", layers: tuple[Layer, ...], focus: Focus, traced: Trace | None
) -> Subject:
    """Return the subject of proposals, with the sizes of norms and of the heads to train in full."""
    norms = {layer.path: model.get_submodule(layer.path) for layer in layers if layer.kind == "norm"}
    saved = static.find_saved(layers)
    # PEFT saves every module whose path ends with a name, even within a segment.
    heads = [module for path, module in model.named_modules() if saved.names and path.endswith(saved.names)]
    return Subject(
        layers=layers,
        module_paths=static.module_paths,
        parameter_paths=static.parameter_paths,
        norm_sizes={path: sum(prod(shape_of(p)) for p in norm.parameters()) for path, norm in norms.items()},
        saved=saved,
        saved_parameters=sum({id(p): prod(shape_of(p)) for head in heads for p in head.parameters()}.values()),
        left_out=(
            *_describe_left_out(model, traced.uncalled if traced else ()),
            *(
                f"left out: {count_of(count, name)}, {share:.0%} of the weights: no adapter for it"
                for name, count, share in list_unfitting(model, layers)
            ),
        ),
        focus=focus,
        has_entry=static.facts.architecture.has_peft_entry,
    )


def _describe_left_out(model: nn.Module, uncalled: tuple[str, ...]) -> Iterator[str]:
    """Yield a reason for compiled parts, one for packed layers, and one for matrices in containers never called."""
    compiled, packed = list_compiled(model), list_packed(model)
    if packed:
        yield f"left out: layers with packed weights ({list_some(packed)}), which no gradient passes"
    if compiled:
        what = f"{len(compiled)} modules compiled by TorchScript ({list_some(compiled)})"
        yield f"left out: {what}, whose layers cannot be replaced"
    if uncalled:
        what = f"{len(uncalled)} matrices in containers of parameters ({list_some(uncalled)})"
        yield f"left out: {what}, which are never called; held by the module that uses them they can be adapted"


def build_subject(subject: "nn.Module | PreTrainedConfig | str") -> nn.Module:
    """Return the module of a subject: inside its wrappers, or built on meta from a configuration or a reference.

    Raises:
        InvalidReference: If it is none of these.
    """
    if isinstance(subject, nn.Module):
        return unwrap(subject)
    if isinstance(subject, str):
        return sources.build(Reference.parse(subject))
    if is_configuration(subject) and is_of_transformers(subject):
        return sources.build_config(subject)
    message = f"Cannot scan a {type(subject).__name__}. Give a torch module, a transformers config or a reference."
    if is_configuration(subject):
        name = f"{type(subject).__module__}.{type(subject).__qualname__}"
        message = f"{name} is no configuration of transformers' own. Scan the model that is built from it."
    raise InvalidReference(message, type=type(subject).__name__)


# --- without a forward ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StaticModel:
    """The static description of a model: its modules, layers and configuration.

    Attributes:
        facts: Identity, models inside it and declared heads.
        sites: Every module, in the order of ``named_modules``.
        layers: Its layers, without roles.
        towers: Which tower a path belongs to.
    """

    facts: ModelFacts
    sites: tuple[Site, ...]
    layers: tuple[Layer, ...]
    towers: TowerMap

    @cached_property
    def module_paths(self) -> tuple[str, ...]:
        """Every module path of the model."""
        return tuple(site.path for site in self.sites)

    @property
    def classes(self) -> tuple[tuple[str, str], ...]:
        """The path and class name of every module."""
        return tuple((site.path, type(site.module).__name__) for site in self.sites)

    @cached_property
    def _around(self) -> Surroundings:
        return Surroundings(self.facts, self.towers, self.module_paths, self.layers, self.has_others)

    @cached_property
    def has_others(self) -> bool:
        """Whether much of a user's own module is of a kind that no adapter is proposed for, such as an LSTM."""
        return self.facts.architecture.library == "torch" and holds_unfitting(self.sites[0].module, self.layers)

    def label_all(self) -> tuple[Layer, ...]:
        """Return every layer with the role that names and structure give it."""
        return label_layers(self._around)

    @property
    def guesses_heads(self) -> bool:
        """Whether the heads of ``label_all`` are guesses."""
        return guesses_heads(self._around)

    def label(self, layers: Iterable[Layer]) -> tuple[Layer, ...]:
        """Return some of the layers with static roles; the last layer of a custom module is no head yet."""
        return tuple(label_layer(layer, self._around) for layer in layers)

    def find_saved(self, labelled: Iterable[Layer]) -> Saved:
        """Return the modules to train in full, given every layer that may be a head or a token embedding."""
        return find_saved(tuple(labelled), self.facts, self.module_paths, self.parameter_paths)

    @cached_property
    def parameter_paths(self) -> tuple[str, ...]:
        """Every parameter path of the model."""
        return tuple(
            f"{site.path}.{name}" if site.path else name
            for site in self.sites
            for name, parameter in site.module._parameters.items()
            if parameter is not None
        )


def read_model(model: nn.Module) -> StaticModel:
    """Read a model's modules and configuration; no forward runs and nothing is changed.

    Raises:
        ScanFailed: If an attribute of a user's module fails when it is read, or the layers cannot be read: a model that
            is compiled by TorchScript, flattened, not initialised yet, or adapted already.
    """
    check_readable(model)
    try:
        sites = (*walk(model),)
        facts = collect_facts(model, sites)
        return StaticModel(facts, sites, list_layers(model, sites), map_towers(facts))
    except RuntimeError as error:  # a property that fails or recurs without end
        raise unreadable(model, error) from error


def unreadable(model: nn.Module, error: RuntimeError) -> ScanFailed:
    """Return the error for a model with an attribute that fails when it is read."""
    cause = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"
    message = f"{type(model).__name__} could not be read ({cause}). Scan it without what fails, or by a reference."
    return ScanFailed(message, reference=type(model).__name__, cause=cause)
