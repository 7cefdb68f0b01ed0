"""What makes two models one structure: by the names they give their layers, and by what the layers do alone.

Neither digest knows width, depth, class names or heads, so a small build, a deeper one and another task class of an
architecture have those of the architecture.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from hashlib import sha256

from ..domain.layers import Layer
from ..domain.patterns import pattern_of
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
"""Roles at whose one end the width of the model stands. That at the other (of heads, of the intermediate) is free."""


def fingerprint(layers: Iterable[Layer]) -> str:
    """Return a ``sha256:`` digest of the kinds and path patterns of what stands in the blocks.

    A model without blocks is digested whole. By names and traced, a model has the same one.
    """
    return _digest({f"{layer.kind} {pattern_of(layer.path)}" for layer in _in_blocks(layers)})


def structure(layers: Iterable[Layer]) -> str | None:
    """Return a ``sha256:`` digest of what each kind of block holds, in order, whatever its layers are called.

    Of each layer: its kind, its role, its layout, the kernel of a convolution, and whether it reads and writes the
    width its block works on, where that is no accident of the numbers. Each kind of block counts once, so depth does
    not enter. Only for layers of a traced model: a role told by a name would carry that name into the digest, so such
    a layer enters without its role. Norms do not enter, since many are known by the name of their class alone.

    Returns:
        ``None`` if no layer but norms and heads is there.
    """
    blocks: dict[str | None, list[Layer]] = defaultdict(list)
    for layer in _in_blocks(layers):
        if "norm" not in (layer.kind, layer.role) and layer.role != "head":
            blocks[layer.block].append(layer)
    return _digest({_describe(held) for held in blocks.values()}) if blocks else None


def _in_blocks(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    known = tuple(layers)
    return tuple(layer for layer in known if layer.depth) or known


def _digest(lines: Iterable[str]) -> str:
    return f"sha256:{sha256(chr(10).join(sorted(lines)).encode()).hexdigest()}"


def _describe(held: Sequence[Layer]) -> str:
    stream = _stream_of(held)
    return f"{held[0].depth}: " + ", ".join(_token(layer, stream) for layer in held)


def _stream_of(held: Iterable[Layer]) -> int | None:
    """Return the width most layers of a block meet, where their role says that they meet the width of the model."""
    widths = Counter(width for layer in held for width in (_stream_end(layer),) if width)
    return max(widths, key=lambda width: (widths[width], width), default=None)


def _stream_end(layer: Layer) -> int | None:
    if layer.role in READS_STREAM:
        return layer.in_features
    return layer.out_features if layer.role in WRITES_STREAM else None


def _token(layer: Layer, stream: int | None) -> str:
    # What an embedding is for, its name tells.
    is_told = layer.confidence == "high" and layer.kind != "embedding"
    role = layer.role if is_told else "other"
    end = _stream_end(layer) if role != "other" else None
    meets = "" if end is None else "stream" if end == stream else "inner"
    kernel = "x".join(map(str, layer.shape[2:])) if layer.kind.startswith("conv") else ""
    return " ".join(filter(None, (layer.kind, role, layer.layout, kernel, meets)))
