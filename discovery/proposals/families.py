"""One rule per family of PEFT's methods: which layers it adapts; and the proposals that come of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...domain.layers import Blocks, Layer
from ...domain.methods import get_family, get_method
from ...domain.scans import Proposal
from ...domain.selection import Choice, count_fixed, count_gains, count_per_rank, make_spec
from ...domain.targets import Formula
from ...domain.vocabulary import Role
from ..facts.data_files import read_facts
from .reasons import tell_experts, tell_hit
from .rules import EXPERT, MIXER_INPUT, Candidates, all_linear, choose_candidates, choose_layers, is_reached, with_roles

KEY_VALUE: frozenset[Role] = frozenset({"attention.key", "attention.value", "attention.qkv", "attention.kv"})
FEED_FORWARD: frozenset[Role] = frozenset({"mlp.down", "expert.down"})
PROJECTIONS: frozenset[Role] = KEY_VALUE | {"attention.query", "attention.latent", "mixer.input", "mixer.state"}
"""Roles beside which a norm works inside a mixer: on queries, keys or a state, not between the layers of the block."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What proposals are made for.

    Attributes:
        layers: Labelled layers.
        module_paths: Every module path of the model.
        parameter_paths: Every parameter path of the model.
        norm_sizes: Parameters of each norm, its bias included, by path.
        saved: Paths of freshly made heads, to be trained in full.
        saved_parameters: How many parameters those heads hold.
    """

    layers: tuple[Layer, ...]
    module_paths: tuple[str, ...]
    parameter_paths: tuple[str, ...]
    norm_sizes: Mapping[str, int]
    saved: tuple[str, ...]
    saved_parameters: int


def propose_all(subject: Subject) -> tuple[Proposal, ...]:
    """Return the proposals of every family and preset that has something to hit."""
    candidates = choose_candidates(subject.layers)
    if candidates is None:
        return ()
    blocks = Blocks(subject.layers)
    return tuple(_propose(choice, candidates, subject, blocks) for choice in _choices(candidates, subject))


def _choices(candidates: Candidates, subject: Subject) -> Iterator[Choice]:
    """Yield what each family adapts, where there is something."""
    for preset in get_family("LORA").presets:
        layers, why = choose_layers(candidates.layers, preset)
        yield from _chosen("LORA", layers, why, preset=preset)
    yield from keys_values_and_what_enters_the_second_layer(candidates.layers)
    yield from norms_between_the_layers(candidates, [x for x in subject.layers if not _is_saved(x, subject.saved)])
    yield from every_matrix_with_singular_values(candidates.layers)
    yield from biases_of_the_values(candidates.layers)


def _chosen(family: str, layers: Sequence[Layer], why: str, **more: object) -> Iterator[Choice]:
    if layers:
        yield Choice(family, tuple(layers), why, **more)  # type: ignore[arg-type]


def _is_saved(layer: Layer, saved: Sequence[str]) -> bool:
    """Tell whether PEFT leaves a layer to ``modules_to_save``: its path holds the name of a module saved, anywhere."""
    return any(f".{name}." in f".{layer.path}." for name in saved)


def keys_values_and_what_enters_the_second_layer(layers: Sequence[Layer]) -> Iterator[Choice]:
    """IA3 (arXiv:2205.05638, section 3.3): keys, values, and what enters the second feed-forward layer.

    A fused projection is scaled whole, as in PEFT's table. Without attention, what enters the mixers stands for them.
    """
    method = get_method("IA3")
    fitting = [layer for layer in layers if method.fits(layer.kind, layer.groups)]
    scaled = with_roles(fitting, KEY_VALUE) or with_roles(fitting, MIXER_INPUT)
    feedforward = with_roles(fitting, FEED_FORWARD)
    why = "key and value, or the projection that holds them, and the second feed-forward layer at its input"
    yield from _chosen("IA3", (*scaled, *feedforward), why, feedforward=feedforward)


def norms_between_the_layers(candidates: Candidates, layers: Sequence[Layer]) -> Iterator[Choice]:
    """LN_TUNING: the norms that blocks put between their layers, and the one that follows the last block.

    A norm beside the projections of an attention or a mixer works on queries, keys or a state, and is left alone; so is
    one of the embeddings.
    """
    inside = {layer.path.rpartition(".")[0] for layer in layers if layer.role in PROJECTIONS and layer.depth}
    norms = [
        layer
        for layer in layers
        if layer.role == "norm" and layer.kind == "norm" and layer.tower == candidates.tower and is_reached(layer)
    ]
    between = [layer for layer in norms if layer.depth and layer.path.rpartition(".")[0] not in inside]
    around = _paths_around_blocks(candidates, layers)
    last = [layer for layer in norms if layer.path in around and not _stands_before(layer)]
    why = "the norms between the layers of the blocks, and the one behind the last block"
    chosen = {layer.path for layer in (*between, *last)}
    yield from _chosen("LN_TUNING", [layer for layer in norms if layer.path in chosen], why)


def _paths_around_blocks(candidates: Candidates, layers: Sequence[Layer]) -> set[str]:
    """Return the layers beside a list of blocks, and those that follow it in a module around it."""
    stacks = {layer.block.rpartition(".")[0] for layer in candidates.layers if layer.block}
    beside = {stack.rpartition(".")[0] for stack in stacks}
    around: set[str] = set()
    found: set[str] = set()
    for layer in layers:
        owner = layer.path.rpartition(".")[0]
        if layer.block and layer.block.rpartition(".")[0] in stacks:
            around.update(_owners(layer.block))
        elif not layer.depth and owner in around | beside:
            found.add(layer.path)
    return found


def _owners(path: str) -> set[str]:
    segments = path.split(".")
    return {".".join(segments[:end]) for end in range(len(segments) - 1)}


def _stands_before(norm: Layer) -> bool:
    words = norm.name.lower().split("_")
    starts: list[str] = read_facts("methods.toml")["families"]["LN_TUNING"]["unless"]
    return any(word.startswith(tuple(starts)) for word in words)


def every_matrix_with_singular_values(layers: Sequence[Layer]) -> Iterator[Choice]:
    """OSF: every linear layer of the blocks; a matrix needs two singular values, one to keep and one to train."""
    method = get_method("OSF")
    linear, why = all_linear(layers)
    yield from _chosen("OSF", [x for x in linear if method.fits(x.kind) and min(x.shape) > 1], why)


def biases_of_the_values(layers: Sequence[Layer]) -> Iterator[Choice]:
    """BEFT: the value projections that stand alone; in a fused one the biases of query and key would be trained too."""
    method = get_method("BEFT")
    values = with_roles([layer for layer in layers if method.fits(layer.kind)], frozenset({"attention.value"}))
    yield from _chosen("BEFT", values, "the value projections that stand alone (PEFT's convention)")


def _propose(choice: Choice, candidates: Candidates, subject: Subject, blocks: Blocks) -> Proposal:
    experts = [layer for layer in choice.layers if layer.role in EXPERT and layer.kind == "expert_parameter"]
    gains = count_gains(choice.layers, subject.parameter_paths)
    why = (*tell_hit(choice), choice.why, *tell_experts(experts, subject.parameter_paths), *candidates.reasons)
    fixed = count_fixed(choice, subject.norm_sizes, gains) + subject.saved_parameters
    return Proposal(
        peft_type=choice.family,
        preset=choice.preset,
        **make_spec(choice, subject.module_paths, subject.parameter_paths, subject.saved).values,
        matched=len(choice.layers),
        formula=Formula(count_per_rank(choice, gains), fixed),
        reasons=why,
        coverage=blocks.cover(choice.layers),
        reached=blocks.share(choice.layers),
    )
