"""Explain whether the layers of a name are targets: their role, its evidence, the presets, reasons against."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Literal

from ...errors import NotRegistered, UnknownLayer
from ...schema import Config, schema_config
from ...similar_names import nearest
from ..choosing.stored_layers import StoredLayers
from ..layers import Evidence, Layer
from ..mappings import ArchitectureDetail, Mapping
from ..methods import TARGETED
from ..patterns import OPEN, name_leaves, pattern_of
from ..scans import Proposal, Scan
from ..targets import TargetMatcher, TargetSpec, find_hits, resolve_blocks
from ..vocabulary import EVERYTHING, PRESETS, RECOMMENDED, STANDS_FOR, Kind, Role, Tower, list_some
from .left_out import Adapted, explain_left_out
from .role_names import name_roles

MOST_SLOTS = 32
"""Slots that are explained at most: a name such as `weight` may be in all of them."""
_ENDINGS = (".weight", ".bias", ".base_layer", ".lora_A", ".lora_B", ".default")
_BEGINNINGS = ("base_model.model.", "module.")


@dataclass(frozen=True, slots=True)
class Choice:
    """The effect of one mapping or proposal on a layer."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    peft_type: str
    preset: str
    source: str
    """Where its targets come from: ``scanner 0.1.0``, ``peft 0.21.2``, ``scan``."""
    target: str | None
    """The target that matches the layer; null if none does, or an exclusion keeps it out."""
    why: str
    """Why it is not adapted, or the place in the targets; empty if a target matches it."""


@dataclass(frozen=True, slots=True)
class LayerExplanation:
    """Layers that are alike: their role with the evidence for it, and the effect of each preset on them."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    path: str
    """Path of the layer, or the first of them."""
    pattern: str
    """Path with ``*`` in place of each index."""
    count: int
    """Layers of this pattern that are meant."""
    kind: Kind
    role: Role
    tower: Tower
    role_from: str
    """Source of the role: ``dataflow``, ``names``, ``structure``, ``source``; ``catalog`` if a stored scan has it."""
    evidence: tuple[Evidence, ...]
    """The evidence for the role and the liveness."""
    live: bool | None
    """Whether an adapter receives a gradient; null if that is unproven."""
    choices: tuple[Choice, ...]
    """The presets of LoRA, PEFT's own entry, and other methods that adapt it."""
    saved: bool
    """Whether every proposal trains it in full."""

    @property
    def is_target(self) -> bool:
        """Whether any preset of LoRA adapts it."""
        return any(choice.target for choice in self.choices if choice.peft_type == TARGETED)


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer to why layers of a name are targets or not."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (EXPLANATION_EXAMPLE,))

    reference: str
    library_version: str | None
    given: str
    """The name as it was given."""
    found_as: Literal["path", "pattern", "deeper path", "name", "module"]
    """What it is: the path of a layer, a pattern, a path beyond the scanned depth, the end of paths as in a target, or
    a module with layers inside."""
    origin: Literal["registry", "scan"]
    """Whether stored slots were read, or the model was scanned now."""
    layers: tuple[LayerExplanation, ...]
    more: int = 0
    """Kinds of layers beyond those listed."""


@dataclass(frozen=True)
class Subject:
    """A model whose layers are explained.

    Attributes:
        reference: Its architecture.
        library_version: Version of the library.
        origin: Where the layers come from.
        method: How their roles were found.
        layers: Its layers.
        offers: The mappings or proposals with the source of each.
    """

    reference: str
    library_version: str | None
    origin: Literal["registry", "scan"]
    method: str | None
    layers: Sequence[Layer]
    offers: Sequence[tuple[str, Mapping | Proposal]] = field(repr=False)

    @classmethod
    def of_registry(cls, detail: ArchitectureDetail) -> "Subject":
        """Return the mappings of an architecture in the registry, PEFT's own entries included."""
        architecture = detail.architecture
        known = {one.preset for one in detail.mappings if one.peft_type == TARGETED}
        whole = [one for one in detail.mappings if one.peft_type == TARGETED and one.preset == STANDS_FOR[RECOMMENDED]]
        shared = [replace(one, preset=RECOMMENDED) for one in whole if RECOMMENDED not in known]
        peft = [one for one in detail.revisions if one.source.kind == "peft" and one.peft_type == TARGETED]
        ids = {mapping.id for mapping in peft}
        offers = [*(one for one in detail.mappings if one.id not in ids), *shared, *peft[-1:]]
        return cls(
            architecture.reference,
            architecture.library_version,
            "registry",
            detail.method,
            tuple(StoredLayers(detail.slots).sizes),
            tuple((f"{one.source.kind} {one.source.version}", one) for one in offers),
        )

    @classmethod
    def of_scan(cls, scan: Scan) -> "Subject":
        """Return a model that was scanned."""
        architecture = scan.architecture
        named = {one.preset for one in scan.proposals if one.peft_type == TARGETED}
        same = [one for one in scan.proposals if one.peft_type == TARGETED and one.preset == STANDS_FOR[RECOMMENDED]]
        shared = [replace(one, preset=RECOMMENDED) for one in same if RECOMMENDED not in named]
        offers = tuple(("scan", proposal) for proposal in (*scan.proposals, *shared))
        return cls(architecture.reference, architecture.library_version, "scan", scan.method, scan.layers, offers)

    @cached_property
    def adapted(self) -> Adapted:
        """The layers that the presets adapt, beside the one that adapts everything."""
        hits = [
            find_hits(one.spec, self.layers)
            for _, one in self.offers
            if one.peft_type == TARGETED and one.preset != EVERYTHING
        ]
        everything = [find_hits(one.spec, self.layers) for _, one in self.offers if one.preset == EVERYTHING]
        return Adapted(
            frozenset(layer.tower for found in hits for layer in found),
            frozenset(layer.path for found in everything for layer in found),
            tuple(f"{layer.path}." for layer in self.layers if layer.kind == "multihead_attention"),
        )


def explain(subject: Subject, given: str) -> Explanation:
    """Explain the layers that a name stands for.

    Args:
        subject: The model.
        given: The path of a layer, a pattern with ``*``, the end of paths as in a target (``q_proj``), or the path of a
            module with layers inside; the names of weights, and prefixes of wrappers, are understood.

    Raises:
        UnknownLayer: If no layer has it; names the nearest ones, and those of its kind.
        NotRegistered: If its layers are not on record.
    """
    if not subject.layers:
        command = f"loradar scan {subject.reference.removeprefix('transformers:')} --store"
        message = f"The layers of {subject.reference} are not on record. Scan it with: {command}."
        raise NotRegistered(subject.reference, (), message, command=command)
    found_as, layers = _find(subject.layers, _clean(given))
    if not layers:
        raise _unknown(subject, given)
    groups: dict[tuple[str, Role, Tower, str], list[Layer]] = {}
    for layer in layers:
        groups.setdefault((pattern_of(layer.path), layer.role, layer.tower, str(layer.live)), []).append(layer)
    shown = [*groups.values()][:MOST_SLOTS]
    return Explanation(
        subject.reference,
        subject.library_version,
        given,
        found_as,
        subject.origin,
        tuple(_explain_group(subject, group, given if found_as == "deeper path" else None) for group in shown),
        len(groups) - len(shown),
    )


def _clean(given: str) -> str:
    """Return the path of a layer from that of its weight, or of a part of an adapter on it, in any wrapper."""
    name = given.strip().strip("'\"")
    for beginning in _BEGINNINGS:
        name = name.removeprefix(beginning)
    while ending := next((one for one in _ENDINGS if name.endswith(one) and name != one), None):
        name = name.removesuffix(ending)
    return name


Found = Literal["path", "pattern", "deeper path", "name", "module"]


def _find(layers: Sequence[Layer], name: str) -> tuple[Found, list[Layer]]:
    """Return the layers that a name stands for, and how; none if it stands for nothing."""
    pattern, matcher = pattern_of(name), TargetMatcher((name,))
    ways: tuple[tuple[Found, Callable[[str], object]], ...] = (
        ("path", lambda path: path == name),
        ("pattern", lambda path: OPEN in name and pattern_of(path) == name),
        ("deeper path", lambda path: pattern != name and pattern_of(path) == pattern),
        ("name", matcher.find),
        ("module", lambda path: path.startswith(f"{name}.")),
        ("module", lambda path: f".{name}." in path),
    )
    for found_as, holds in ways if name else ():
        if listed := [layer for layer in layers if holds(layer.path)]:
            return found_as, listed
    return "name", []


def _unknown(subject: Subject, given: str) -> UnknownLayer:
    """Return the error for a name that no layer has: the nearest names, and the layers of its kind."""
    name = _clean(given)
    leaves = name_leaves(layer.path for layer in subject.layers)
    patterns = dict.fromkeys(pattern_of(layer.path) for layer in subject.layers)
    roles = name_roles(name, {layer.role for layer in subject.layers})
    alike = name_leaves(layer.path for layer in subject.layers if layer.role in roles)
    if alike:
        way_out = f"Layers of its kind there: {list_some(alike, 6)}."
        near: Iterable[str] = alike
    else:
        near = nearest(name.rpartition(".")[2], leaves, 3) or nearest(pattern_of(name), patterns, 3)
        way_out = "" if near else f"Its layers are named {list_some(leaves, 8)}."
    return UnknownLayer(given, subject.reference, [*near], way_out)


def _explain_group(subject: Subject, layers: Sequence[Layer], deeper: str | None) -> LayerExplanation:
    first = layers[0]
    saved = [one.spec.modules_to_save or () for _, one in subject.offers]
    by_role = [one for one in first.evidence if one.by != "liveness"]
    if subject.origin == "registry":
        how = f"by {subject.method}" if subject.method else "by names"
        says = f"the stored scan of {subject.reference} ({subject.library_version}) found the role {how}"
        evidence: tuple[Evidence, ...] = (Evidence("catalog", says), *_describe_liveness(first))
    else:
        evidence = (*first.evidence, *(_describe_liveness(first) if len(by_role) == len(first.evidence) else ()))
    return LayerExplanation(
        _clean(deeper) if deeper else first.path,
        pattern_of(first.path),
        len(layers),
        first.kind,
        first.role,
        first.tower,
        "catalog" if subject.origin == "registry" else (by_role[0].by if by_role else subject.method or "names"),
        evidence,
        first.live,
        tuple(_list_choices(subject, first)),
        bool(saved) and all(TargetMatcher(names).find(first.path) for names in saved if names) and any(saved),
    )


def _describe_liveness(layer: Layer) -> Iterator[Evidence]:
    if layer.live is True:
        yield Evidence("liveness", "an adapter on it received a gradient in a small real build")
    if layer.bypassed:
        yield Evidence("source", f"its weight is read at {layer.bypassed}, without calling it")
    if layer.kernel:
        yield Evidence("source", f"a fused kernel reads its weight at {layer.kernel}")
    if layer.proof:
        yield Evidence("liveness", layer.proof)


def _list_choices(subject: Subject, layer: Layer) -> Iterator[Choice]:
    """Yield the effect of each preset of LoRA on a layer, then the other methods that adapt it."""
    order: dict[str, int] = {preset: at for at, preset in enumerate(PRESETS)}
    lora = [offer for offer in subject.offers if offer[1].peft_type == TARGETED]
    for source, offer in sorted(lora, key=lambda one: order.get(one[1].preset, len(order))):
        target = find_target(offer.spec, layer, subject.layers)
        why = "" if target else explain_left_out(layer, offer, subject.adapted)
        yield Choice(offer.peft_type, offer.preset, source, target, why)
    for source, offer in subject.offers:
        target = find_target(offer.spec, layer, subject.layers) if offer.peft_type != TARGETED else None
        if target:
            yield Choice(offer.peft_type, offer.preset, source, target, "")


def find_target(spec: TargetSpec, layer: Layer, layers: Sequence[Layer]) -> str | None:
    """Return the target of a spec that matches a layer; ``None`` if none does, or it is excluded."""
    if layer.kind == "expert_parameter":
        return TargetMatcher(spec.target_parameters or ()).find(layer.path)
    known = resolve_blocks(spec, (one.path for one in layers))
    if TargetMatcher(known.exclude_modules or ()).find(layer.path):
        return None
    return TargetMatcher(known.target_modules or ()).find(layer.path)


EXPLANATION_EXAMPLE: Explanation = Explanation(
    "transformers:llama",
    "5.24.0",
    "q_proj",
    "name",
    "registry",
    (
        LayerExplanation(
            "model.layers.0.self_attn.q_proj",
            "model.layers.*.self_attn.q_proj",
            32,
            "linear",
            "attention.query",
            "language",
            "catalog",
            (Evidence("catalog", "the stored scan of transformers:llama (5.24.0) found the role by dataflow"),),
            live=True,
            choices=(Choice("LORA", "default", "peft 0.21.2", "q_proj", ""),),
            saved=False,
        ),
    ),
)
