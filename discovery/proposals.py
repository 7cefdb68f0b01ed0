"""Proposals: the layers each preset of LoRA and each family of PEFT's methods adapts, with the reasons."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ..data import read_facts
from ..domain.choosing.recommendations import choose_recommended, prefer_recommended
from ..domain.layers import Blocks, Layer
from ..domain.methods import TARGETED, get_family, get_method
from ..domain.patterns import pattern_of
from ..domain.presets import (
    ADAPTABLE_KINDS,
    ADDED,
    EXPERT,
    FEED_FORWARD,
    KEY_VALUE,
    MIXER_INPUT,
    NEVER,
    PROJECTIONS,
    WHOLE,
    all_linear,
    choose_in_each_tower,
    choose_lora,
    is_adaptable,
    is_reached,
    start_of_parts,
    with_roles,
    without_parts,
)
from ..domain.scans import Beside, Proposal
from ..domain.selection import (
    Choice,
    count_fixed,
    count_gains,
    count_per_rank,
    describe_blocks,
    describe_slots,
    include_siblings,
    make_spec,
)
from ..domain.targets import NO_TARGETS, Formula, TargetSpec
from ..domain.vocabulary import EVERYTHING, RANK, RECOMMENDED, STANDS_FOR, Preset, Role, count_layers
from .facts.towers import is_below
from .focus import EVERY_TOWER, Focus, choose_in_focus, describe_apart, describe_focus
from .saved_modules import Saved

LAYOUTS = {"in_out": "input first (transposed)", "out_in": "output first"}


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that proposals are made for.

    Attributes:
        layers: Labelled layers.
        module_paths: Every module path of the model.
        parameter_paths: Every parameter path of the model.
        norm_sizes: Parameters of each norm, its bias included, by path.
        saved: The modules to train in full.
        saved_parameters: The number of their parameters.
        focus: The towers to adapt.
        left_out: Reasons for what no layer stands for.
        has_entry: Whether PEFT has an entry for the architecture, with which the default agrees.
    """

    layers: tuple[Layer, ...]
    module_paths: tuple[str, ...]
    parameter_paths: tuple[str, ...]
    norm_sizes: Mapping[str, int]
    saved: Saved
    saved_parameters: int
    focus: Focus = EVERY_TOWER
    left_out: tuple[str, ...] = ()
    has_entry: bool = False

    @property
    def reasons(self) -> tuple[str, ...]:
        """Reasons that every proposal has."""
        return (*self.left_out, *self.saved.reasons)

    @property
    def beside(self) -> Beside:
        """What a selection of layers needs of the model beside them."""
        return Beside(self.parameter_paths, self.saved_parameters, self.focus.apart, self.reasons)


def propose_all(subject: Subject) -> tuple[Proposal, ...]:
    """Return the proposals of every family and preset that matches a layer."""
    candidates = choose_candidates(subject.layers, subject.focus)
    if not candidates:
        return tuple(propose_heads(subject))
    in_focus = describe_left_out(candidates, subject.layers, subject.focus)
    blocks = Blocks(subject.layers)
    proposals: list[Proposal] = []
    for choice in _list_choices(candidates, subject):
        left_out = describe_rest(subject) if choice.preset == EVERYTHING else in_focus
        gains = count_gains(choice.layers, subject.parameter_paths)
        fixed = count_fixed(choice, subject.norm_sizes, gains) + subject.saved_parameters
        stacks = describe_expert_stacks(choice.layers, subject.parameter_paths)
        spec = make_spec(choice, subject.layers, subject.module_paths, subject.parameter_paths, subject.saved.names)
        proposal = Proposal(
            peft_type=choice.family,
            preset=choice.preset,
            **spec.values,
            matched=len(choice.layers),
            formula=Formula(count_per_rank(choice, gains), fixed),
            reasons=(*describe_slots(choice), choice.why, *stacks, *describe_blocks(spec), *left_out, *subject.reasons),
            coverage=blocks.cover(choice.layers),
            reached=blocks.share(choice.layers),
        )
        proposals.append(proposal)
    return tuple(proposals)


def propose_heads(subject: Subject) -> Iterator[Proposal]:
    """Yield proposals that train the heads in full and adapt nothing, where no other layer takes an adapter."""
    live = {layer.path for layer in subject.layers if layer.role == "head" and is_reached(layer)}
    names = tuple(name for name in subject.saved.names if any(is_below(path, name) for path in live))
    if not names:
        return
    spec = TargetSpec(target_modules=NO_TARGETS, modules_to_save=names)
    left_out = _describe_groups(subject.layers, subject.layers, (NEVER | ADDED) - {"head"})
    coverage = Blocks(subject.layers).cover(())
    presets: tuple[Preset, ...] = ("default", STANDS_FOR[RECOMMENDED])
    for preset in presets:
        yield Proposal(
            peft_type=TARGETED,
            preset=preset,
            **spec.values,
            matched=0,
            formula=Formula(0, subject.saved_parameters),
            coverage=coverage,
            reasons=(spec.describe_saved(), *left_out, *subject.reasons),
        )


def _list_choices(candidates: Sequence[Layer], subject: Subject) -> Iterator[Choice]:
    """Yield the layers of each family, where there are any."""
    # PEFT leaves a layer to modules_to_save if its path has the name of a saved module, anywhere.
    unsaved = [x for x in subject.layers if not any(f".{name}." in f".{x.path}." for name in subject.saved.names)]
    families: list[Callable[[Sequence[Layer]], Choice]] = [
        choose_ia3,
        partial(choose_ln_tuning, layers=unsaved),
        choose_osf,
        choose_beft,
    ]
    has_head = any(layer.role == "head" for layer in subject.layers)
    everything = choose_everything(unsaved, subject.focus, subject.saved.names)
    others = (choose_in_each_tower(candidates, choose) for choose in families)
    for choice in (*_list_lora(candidates, subject), *others, everything):
        if choice.layers:
            yield choice if has_head else replace(choice, why=choice.why.replace("but the head", "(no head is known)"))


def _list_lora(candidates: Sequence[Layer], subject: Subject) -> Iterator[Choice]:
    """Yield the layers of each preset of LoRA but ``everything``; of ``recommended`` unless another stands for it."""
    chosen: dict[str, Choice] = {}
    for preset in get_family("LORA").presets:
        if preset == RECOMMENDED:
            choose: Callable[[Sequence[Layer]], Choice] = partial(choose_recommended, layers=subject.layers)
        else:
            choose = partial(choose_lora, preset=preset)
        found = choose_in_each_tower(candidates, choose)
        chosen[preset] = include_siblings(found, candidates, subject.layers) if preset in WHOLE else found
    recommended = chosen[RECOMMENDED]
    if not subject.has_entry:
        chosen["default"] = prefer_recommended(chosen["default"], recommended, candidates)
    same = chosen[STANDS_FOR[RECOMMENDED]].layers
    is_apart = {layer.path for layer in recommended.layers} != {layer.path for layer in same}
    yield from (x for preset, x in chosen.items() if preset != EVERYTHING and (preset != RECOMMENDED or is_apart))


# --- the layers that may be adapted -----------------------------------------------------------------------------------


def choose_candidates(layers: Sequence[Layer], focus: Focus) -> tuple[Layer, ...]:
    """Return the layers that may be adapted: those of the towers in focus, in the blocks of each."""
    return without_parts(choose_in_focus([layer for layer in layers if is_adaptable(layer)], layers, focus))


def choose_everything(layers: Sequence[Layer], focus: Focus, saved: tuple[str, ...]) -> Choice:
    """Return each layer that takes an adapter, in all towers, in blocks and outside; PEFT saves aux_head with head."""
    free = [x for x in layers if not (x.path.endswith(saved) or any(is_below(x.path, p) for p in focus.apart))]
    every = without_parts([layer for layer in free if is_adaptable(layer, NEVER)])
    return Choice("LORA", every, "every layer that takes an adapter, of all towers, also outside blocks", EVERYTHING)


# --- other families of methods ----------------------------------------------------------------------------------------


def choose_ia3(layers: Sequence[Layer]) -> Choice:
    """Return IA3's layers (arXiv:2205.05638, section 3.3): keys, values, and the second feed-forward layer's input.

    A fused projection is scaled whole, as in PEFT's table. Without attention, the input of the mixers is scaled.
    """
    method = get_method("IA3")
    fitting = [layer for layer in layers if method.fits(layer.kind, layer.groups)]
    scaled = with_roles(fitting, KEY_VALUE) or with_roles(fitting, MIXER_INPUT)
    feedforward = with_roles(fitting, FEED_FORWARD)
    why = "key and value, or the projection that holds them, and the second feed-forward layer at its input"
    return Choice("IA3", (*scaled, *feedforward), why, feedforward=feedforward)


def choose_ln_tuning(candidates: Sequence[Layer], layers: Sequence[Layer]) -> Choice:
    """Return LN_TUNING's norms: those between the layers of the blocks, and the one after the last block.

    A norm beside the projections of an attention or a mixer works on queries, keys or a state, and is left alone; so is
    one of the embeddings.
    """
    projections = (x for x in layers if x.role in PROJECTIONS and x.depth)
    inside = {x.path if x.kind == "multihead_attention" else x.path.rpartition(".")[0] for x in projections}
    around = _find_around_blocks(candidates, layers)
    before = tuple(read_facts("methods.toml")["families"]["LN_TUNING"]["unless"])

    def is_chosen(norm: Layer) -> bool:
        words = norm.name.lower().split("_")
        is_between = norm.depth > 0 and norm.path.rpartition(".")[0] not in inside
        return is_between or (norm.path in around and not any(word.startswith(before) for word in words))

    norms = [x for x in layers if x.role == x.kind == "norm" and x.tower == candidates[0].tower]
    why = "the norms between the layers of the blocks, and the one behind the last block"
    return Choice("LN_TUNING", tuple(norm for norm in norms if is_reached(norm) and is_chosen(norm)), why)


def _find_around_blocks(candidates: Sequence[Layer], layers: Sequence[Layer]) -> set[str]:
    """Return the layers beside a list of blocks, and those that follow it in a module around it."""
    stacks = {layer.block.rpartition(".")[0] for layer in candidates if layer.block}
    around = {stack.rpartition(".")[0] for stack in stacks}
    paths: set[str] = set()
    for layer in layers:
        if layer.block and layer.block.rpartition(".")[0] in stacks:
            segments = layer.block.split(".")
            around.update(".".join(segments[:end]) for end in range(len(segments) - 1))
        elif not layer.depth and layer.path.rpartition(".")[0] in around:
            paths.add(layer.path)
    return paths


def choose_osf(layers: Sequence[Layer]) -> Choice:
    """Return OSF's linear layers of the blocks; a matrix needs two singular values, one to keep and one to train."""
    method = get_method("OSF")
    linear, why = all_linear(layers)
    return Choice("OSF", tuple(x for x in linear if method.fits(x.kind) and min(x.shape) > 1), why)


def choose_beft(layers: Sequence[Layer]) -> Choice:
    """Return BEFT's separate value projections; in a fused one the biases of query and key would be trained too."""
    method = get_method("BEFT")
    values = tuple(layer for layer in layers if method.fits(layer.kind) and layer.role == "attention.value")
    return Choice("BEFT", values, "the value projections that stand alone (PEFT's convention)")


# --- reasons in words -------------------------------------------------------------------------------------------------


def describe_expert_stacks(layers: Sequence[Layer], parameter_paths: Collection[str]) -> list[str]:
    """Return a reason for each stack of fused experts: their number, their layout, fused projections and a bias."""
    experts = [x for x in layers if x.role in EXPERT and x.kind == "expert_parameter" and len(x.shape) == 3]  # noqa: PLR2004
    reasons = []
    for pattern, layer in {pattern_of(layer.path): layer for layer in experts}.items():
        owner, _, leaf = layer.path.rpartition(".")
        has_bias = any(f"{owner}.{name}" in parameter_paths for name in (f"{leaf}_bias", f"{leaf}_b", "bias"))
        facts = (
            f"{layer.shape[0]} experts in one parameter",
            LAYOUTS.get(layer.layout or "", ""),
            "gate and up in one, adapted together" if layer.role == "expert.gate_up" else "",
            "with a bias, which is left alone" if has_bias else "",
        )
        reasons.append(f"{pattern}: {', '.join(filter(None, facts))}")
    return reasons


def describe_left_out(candidates: Sequence[Layer], layers: Sequence[Layer], focus: Focus) -> list[str]:
    """Return a reason for the towers adapted, and for each group of layers left out of them."""
    reasons = describe_focus(candidates, layers, focus)
    if any(layer.depth for layer in candidates):
        reasons.append("only layers in the repeated blocks are adapted")
    towers = {layer.tower for layer in candidates}
    return reasons + _describe_groups(layers, [layer for layer in layers if layer.tower in towers], NEVER | ADDED)


def describe_rest(subject: Subject) -> list[str]:
    """Return a reason for each group of layers that no preset adapts."""
    return describe_apart(subject.focus) + _describe_groups(subject.layers, subject.layers, NEVER)


def _describe_groups(layers: Sequence[Layer], own: Sequence[Layer], never: frozenset[Role]) -> list[str]:
    """Return a reason for each group of layers left out: of all by role, of the towers adapted by what is no role."""
    whole = start_of_parts([layer for layer in own if is_adaptable(layer)])
    apart = [layer for layer in own if not layer.path.startswith(whole)]
    groups = (*_count_roles(layers, never), *_count_unreached(apart), *_count_grouped(layers), *_count_misfits(apart))
    reasons = [f"left out: {group}" for group in groups]
    if whole:
        reasons.append("nn.MultiheadAttention is adapted as a whole: in_proj_weight and out_proj, by LoRA alone")
    return reasons


def _count_roles(layers: Sequence[Layer], roles: frozenset[Role]) -> Iterator[str]:
    """Yield the number of layers in each role that is left out; a router may be of a class of its own."""
    kept = (x.role for x in layers if x.kind in ADAPTABLE_KINDS or (x.role == "moe.router" and x.kind == "other"))
    for role, count in sorted(Counter(role for role in kept if role in roles).items()):
        yield count_layers(count, role) + (f" (adapted by preset {EVERYTHING!r})" if role in ADDED else "")


def _count_grouped(layers: Sequence[Layer]) -> Iterator[str]:
    """Yield the number of convolutions whose groups no adapter can have."""
    grouped = sum(layer.role == "conv.spatial" and RANK % layer.groups > 0 for layer in layers)
    if grouped:
        yield f"{count_layers(grouped)} whose groups do not divide rank {RANK}"


def _count_misfits(own: Sequence[Layer]) -> Iterator[str]:
    """Yield the number of layers of the tower that no adapter fits, by class and reason."""
    adapted = [layer for layer in own if layer.kind in ADAPTABLE_KINDS and not layer.bypassed]
    misfits = Counter((layer.class_name, layer.misfit) for layer in adapted if layer.misfit)
    for (name, misfit), count in sorted(misfits.items()):
        yield f"{count_layers(count, name)}, because each {misfit}"


def _count_unreached(own: Sequence[Layer]) -> Iterator[str]:
    """Yield the number of layers of the adapted towers that no gradient reaches, by cause."""
    dead = [layer for layer in own if layer.live is False and not layer.bypassed and layer.kind in ADAPTABLE_KINDS]
    causes = Counter(layer.cause for layer in dead)
    for cause, count in sorted(causes.items()):
        yield f"{count_layers(count)} known to get no gradient{cause and f': {cause}'}"
    bypassed = Counter(layer.bypassed for layer in own if layer.bypassed)
    for location, count in sorted(bypassed.items()):
        yield f"{count_layers(count)} never called, whose weight is read at {location}"
    fused = Counter((layer.kernel, layer.role) for layer in own if layer.kernel)
    for (kernel, role), count in sorted(fused.items()):
        yield f"{count_layers(count, role)} bypassed under {kernel}"
