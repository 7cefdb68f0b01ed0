"""Digests of the structure of a model: with the names of its layers, by their function alone, and of all of it.

``fingerprint`` and ``structure`` do not depend on width, depth, class names or heads, so a small build, a deeper one
and another task class of an architecture share those of the architecture. ``digest_build`` depends on everything.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from hashlib import sha256

from ..domain.layers import Layer
from ..domain.patterns import pattern_of
from ..domain.scans import Variant
from ..domain.vocabulary import Role

READS_STREAM: frozenset[Role] = frozenset(
    {
        "attention.query",
        "attention.qkv",
        "attention.latent",
        "mixer.input",
        "mlp.gate",
        "mlp.up",
        "mlp.gate_up",
        "moe.router",
        "expert.gate",
        "expert.up",
        "expert.gate_up",
    }
)
WRITES_STREAM: frozenset[Role] = frozenset({"attention.output", "mlp.down", "mixer.output", "expert.down"})
"""Roles with the width of the model at one end. The width at the other (of heads, of the intermediate) is free."""

_DIGITS = 16


def fingerprint(layers: Iterable[Layer]) -> str:
    """Return a ``sha256:`` digest of the kinds and path patterns of the layers in the blocks.

    A model without blocks is digested whole. A model has the same digest by names and traced.
    """
    return _digest({f"{layer.kind} {pattern_of(layer.path)}" for layer in _list_in_blocks(layers)})


def structure(layers: Iterable[Layer]) -> str | None:
    """Return a ``sha256:`` digest of the layers of each kind of block, in order, without their names.

    Of each layer: its kind, its role, its layout, the kernel of a convolution, and whether it reads and writes the
    width its block works on, where that is no accident of the numbers. Each kind of block counts once, so depth does
    not enter. Only for layers of a traced model: a role known by a name would carry that name into the digest, so such
    a layer enters without its role. Norms do not enter, since many are known by the name of their class alone.

    Returns:
        ``None`` if no layer but norms and heads is there.
    """
    blocks: dict[str | None, list[Layer]] = defaultdict(list)
    for layer in _list_in_blocks(layers):
        if "norm" not in (layer.kind, layer.role) and layer.role != "head":
            blocks[layer.block].append(layer)
    return _digest({describe_block(block) for block in blocks.values()}) if blocks else None


def digest_build(classes: Iterable[tuple[str, str]], layers: Iterable[Layer], operations: str) -> str:
    """Return a digest of all that a scan finds before a proof.

    The source of the classes does not enter, since a library changes the annotations, docstrings and argument names of
    most of its models with every release. Where modules, weights and operations are the same, so is what a proof runs.

    Args:
        classes: The path and class name of every module.
        layers: The layers with their roles.
        operations: Digest of the operations of the forwards.
    """
    facts = (
        f"{x.path} {x.kind} {x.shape} {x.role} {x.tower} {x.layout} {x.bypassed} {x.kernel} {x.tied_to}" for x in layers
    )
    modules = (f"{path} {name}" for path, name in classes)
    return sha256("\n".join((*modules, *facts, operations)).encode()).hexdigest()[:_DIGITS]


def digest_with(digest: str | None, variants: Iterable[Variant]) -> str | None:
    """Return the digest of a build with its variants, against which entries for its type are verified too."""
    names = sorted(f"{one.says} {layer.kind} {pattern_of(layer.path)}" for one in variants for layer in one.layers)
    return sha256("\n".join((digest, *names)).encode()).hexdigest()[:_DIGITS] if digest and names else digest


def _list_in_blocks(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """Return the layers in blocks; all layers, if the model has no blocks."""
    known = tuple(layers)
    return tuple(layer for layer in known if layer.depth) or known


def _digest(lines: Iterable[str]) -> str:
    return f"sha256:{sha256(chr(10).join(sorted(lines)).encode()).hexdigest()}"


def describe_block(block: Sequence[Layer]) -> str:
    """Return the depth and the layers of a block as text.

    The width of the model is the one most layers have at the end where their role puts it.
    """
    widths = Counter(width for layer in block for width in (_stream_end(layer),) if width)
    stream = max(widths, key=lambda width: (widths[width], width), default=None)
    return f"{block[0].depth}: " + ", ".join(describe_layer(layer, stream) for layer in block)


def describe_layer(layer: Layer, stream: int | None) -> str:
    """Return the parts of a layer that enter the digest as text."""
    is_known = layer.confidence == "high" and layer.kind != "embedding"  # the use of an embedding is in its name
    role = layer.role if is_known else "other"
    end = _stream_end(layer) if role != "other" else None
    meets = "" if end is None else "stream" if end == stream else "inner"
    kernel = "x".join(map(str, layer.shape[2:])) if layer.kind.startswith("conv") else ""
    return " ".join(filter(None, (layer.kind, role, layer.layout, kernel, meets)))


def _stream_end(layer: Layer) -> int | None:
    """Return the width of a layer at the end where its role puts the width of the model."""
    if layer.role in READS_STREAM:
        return layer.in_features
    return layer.out_features if layer.role in WRITES_STREAM else None
