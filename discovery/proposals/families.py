"""Proposals by family of PEFT's methods: one rule per family chooses its layers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...data import read_facts
from ...domain.layers import Blocks, Layer
from ...domain.methods import get_family, get_method
from ...domain.scans import Proposal
from ...domain.selection import Choice, count_fixed, count_gains, count_per_rank, make_spec
from ...domain.targets import Formula
from ...domain.vocabulary import Role
from .reasons import describe_expert_stacks, describe_left_out, describe_slots
from .rules import EXPERT, MIXER_INPUT, Candidates, all_linear, choose_candidates, choose_layers, is_reached, with_roles

KEY_VALUE: frozenset[Role] = frozenset({"attention.key", "attention.value", "attention.qkv", "attention.kv"})
FEED_FORWARD: frozenset[Role] = frozenset({"mlp.down", "expert.down"})
PROJECTIONS: frozenset[Role] = KEY_VALUE | {"attention.query", "attention.latent", "mixer.input", "mixer.state"}
"""Roles beside which a norm works inside a mixer: on queries, keys or a state, not between the layers of the block."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that proposals are made for.

    Attributes:
        layers: Labelled layers.
        module_paths: Every module path of the model.
        parameter_paths: Every parameter path of the model.
        norm_sizes: Parameters of each norm, its bias included, by path.
        saved: Paths of heads made anew, to be trained in full.
        saved_parameters: The number of parameters of those heads.
    """

    layers: tuple[Layer, ...]
    module_paths: tuple[str, ...]
    parameter_paths: tuple[str, ...]
    norm_sizes: Mapping[str, int]
    saved: tuple[str, ...]
    saved_parameters: int


def propose_all(subject: Subject) -> tuple[Proposal, ...]:
    """Return the proposals of every family and preset that matches a layer."""
    candidates = choose_candidates(subject.layers)
    if candidates is None:
        return ()
    has_blocks = any(layer.depth for layer in candidates.layers)
    left_out = describe_left_out(candidates.tower, subject.layers, has_blocks=has_blocks)
    blocks = Blocks(subject.layers)
    return tuple(_propose(choice, left_out, subject, blocks) for choice in _list_choices(candidates, subject))


def _list_choices(candidates: Candidates, subject: Subject) -> Iterator[Choice]:
    """Yield the layers of each family, where there are any."""
    for preset in get_family("LORA").presets:
        layers, why = choose_layers(candidates.layers, preset)
        if layers:
            yield Choice("LORA", layers, why, preset=preset)
    # PEFT leaves a layer to modules_to_save if its path has the name of a saved module, anywhere.
    unsaved = [x for x in subject.layers if not any(f".{name}." in f".{x.path}." for name in subject.saved)]
    choices = (
        choose_ia3(candidates.layers),
        choose_ln_tuning(candidates, unsaved),
        choose_osf(candidates.layers),
        choose_beft(candidates.layers),
    )
    yield from (choice for choice in choices if choice.layers)


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


def choose_ln_tuning(candidates: Candidates, layers: Sequence[Layer]) -> Choice:
    """Return LN_TUNING's norms: those between the layers of the blocks, and the one after the last block.

    A norm beside the projections of an attention or a mixer works on queries, keys or a state, and is left alone; so is
    one of the embeddings.
    """
    inside = {layer.path.rpartition(".")[0] for layer in layers if layer.role in PROJECTIONS and layer.depth}
    around = _find_around_blocks(candidates, layers)
    before: list[str] = read_facts("methods.toml")["families"]["LN_TUNING"]["unless"]

    def is_chosen(norm: Layer) -> bool:
        is_between = norm.depth and norm.path.rpartition(".")[0] not in inside
        words = norm.name.lower().split("_")
        is_last = norm.path in around and not any(word.startswith(tuple(before)) for word in words)
        return bool(is_between or is_last)

    norms = [x for x in layers if x.role == "norm" and x.kind == "norm" and x.tower == candidates.tower]
    why = "the norms between the layers of the blocks, and the one behind the last block"
    return Choice("LN_TUNING", tuple(norm for norm in norms if is_reached(norm) and is_chosen(norm)), why)


def _find_around_blocks(candidates: Candidates, layers: Sequence[Layer]) -> set[str]:
    """Return the layers beside a list of blocks, and those that follow it in a module around it."""
    stacks = {layer.block.rpartition(".")[0] for layer in candidates.layers if layer.block}
    beside = {stack.rpartition(".")[0] for stack in stacks}
    around: set[str] = set()
    paths: set[str] = set()
    for layer in layers:
        if layer.block and layer.block.rpartition(".")[0] in stacks:
            segments = layer.block.split(".")
            around.update(".".join(segments[:end]) for end in range(len(segments) - 1))
        elif not layer.depth and layer.path.rpartition(".")[0] in around | beside:
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
    values = with_roles([layer for layer in layers if method.fits(layer.kind)], frozenset({"attention.value"}))
    return Choice("BEFT", values, "the value projections that stand alone (PEFT's convention)")


def _propose(choice: Choice, left_out: Sequence[str], subject: Subject, blocks: Blocks) -> Proposal:
    experts = [layer for layer in choice.layers if layer.role in EXPERT and layer.kind == "expert_parameter"]
    gains = count_gains(choice.layers, subject.parameter_paths)
    stacks = describe_expert_stacks(experts, subject.parameter_paths)
    fixed = count_fixed(choice, subject.norm_sizes, gains) + subject.saved_parameters
    return Proposal(
        peft_type=choice.family,
        preset=choice.preset,
        **make_spec(choice, subject.module_paths, subject.parameter_paths, subject.saved).values,
        matched=len(choice.layers),
        formula=Formula(count_per_rank(choice, gains), fixed),
        reasons=(*describe_slots(choice), choice.why, *stacks, *left_out),
        coverage=blocks.cover(choice.layers),
        reached=blocks.share(choice.layers),
    )
