"""Describe the layers of a model: their roles, the slots that group them, and the blocks a selection covers."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import ClassVar, Literal

from ..notebook import Stack
from ..schema import Config, schema_config
from .patterns import pattern_of
from .vocabulary import Kind, Role, Tower

UNCALLED = "the forward of the whole model never calls it"
"""Why a layer is unproven that other inputs may reach."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One reason for a layer's role or liveness."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    by: str
    """Analysis it comes from: ``names``, ``structure``, ``source``, ``dataflow`` or ``liveness``."""
    says: str


@dataclass(frozen=True, slots=True)
class Layer:
    """A module, or a bare parameter (a matrix or a stack of them), that owns an adaptable weight."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    path: str
    """Dotted path in the model."""
    kind: Kind
    """Type of operation an adapter has to imitate."""
    class_name: str
    """Class of the layer."""
    shape: tuple[int, ...]
    """Shape of the weight as stored."""
    in_features: int | None = None
    """Input features, channels or embeddings; null for kinds that have none."""
    out_features: int | None = None
    """Output features or channels."""
    groups: int = 1
    """Convolution groups; 1 for other kinds."""
    owner: str = ""
    """Class of the parent module."""
    tied_to: str | None = None
    """Path of the first layer that shares the weight, if that is another one."""
    block: str | None = None
    """Path of the innermost repeated block around the layer; null outside every block."""
    depth: int = 0
    """Number of repeated blocks around the layer."""
    role: Role = "other"
    """Function in the model."""
    tower: Tower = "main"
    """Sub-model the layer belongs to."""
    layout: str | None = None
    """Split of a fused projection's output (``thirds``, ``halves``, ``unequal``, ``interleaved``) or orientation of
    fused experts (``out_in``, ``in_out``); null for other layers and without a trace."""
    called: bool | None = None
    """Whether a traced forward called the layer; false if it read the weight directly; null without a trace."""
    bypassed: str | None = None
    """Source line that reads the weight without calling the layer, such as ``modeling_wavlm.py:210``."""
    kernel: str | None = None
    """Source line of a path not traced, such as a fused kernel's, that reads the weight without calling the layer."""
    confidence: Literal["high", "low"] = field(default="low", init=False)
    """``high`` if dataflow or structure decided the role, ``low`` if names did."""
    misfit: str | None = None
    """Why no adapter is proposed for the layer, whatever its role: none fits its class; null if one does."""
    live: bool | None = None
    """Whether an adapter on the layer receives a gradient; null if that is unproven."""
    proof: str | None = None
    """Why ``live`` is not true."""
    blocks: str | None = None
    """Blocks of the stack with the same verdict at any depth, as a Python index or slice (``-1`` is the last, ``:-1``
    all others; outer stacks first, separated by ``/``); null where the verdict does not depend on the block."""
    evidence: tuple[Evidence, ...] = ()
    """Reasons for the role, the deciding one first."""

    def __post_init__(self) -> None:
        """Derive the confidence from the evidence."""
        if self.evidence and self.evidence[0].by != "names":
            object.__setattr__(self, "confidence", "high")

    @property
    def name(self) -> str:
        """Last segment of the path."""
        return self.path.rpartition(".")[2]

    @property
    def module_path(self) -> str:
        """Path of the module whose forward uses the weight."""
        return self.path.rpartition(".")[0] if self.kind == "expert_parameter" else self.path

    @property
    def weight_path(self) -> str:
        """Path of the weight among the parameters of the model."""
        return self.path if self.kind == "expert_parameter" else f"{self.path}.weight"

    @property
    def is_uncalled(self) -> bool:
        """Whether the forward of the whole model never calls it, and no proof saw it learn."""
        return self.live is None and self.proof == UNCALLED

    @property
    def cause(self) -> str:
        """Why it cannot learn, if its model is written so; empty if only a proof saw it."""
        written = {evidence.says for evidence in self.evidence if evidence.by != "liveness"}
        return self.proof if self.proof and self.proof in written else ""


@dataclass(frozen=True, slots=True)
class Slot:
    """All layers of one tower with the same role, kind and path pattern."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (SLOT_EXAMPLE,))

    tower: Tower
    role: Role
    kind: Kind
    pattern: str
    """Path with ``*`` in place of each index."""
    count: int
    """Number of layers."""
    layout: str | None = None
    """``thirds``, ``halves``, ``unequal`` or ``interleaved``; ``out_in`` or ``in_out`` for fused experts."""
    bypassed: str | None = None
    """Source line that reads the weights without calling the layers."""
    kernel: str | None = None
    """Source line of a path not traced, such as a fused kernel's, that reads the weights."""
    live: bool | None = None
    """Whether an adapter on these layers receives a gradient; null if that is unproven."""
    proof: str | None = None
    """Why ``live`` is not true."""
    blocks: str | None = None
    """Blocks of the stack that hold these layers at any depth, as a Python index or slice (``-1`` is the last, ``:-1``
    all others; outer stacks first, separated by ``/``); null where the verdict does not depend on the block."""
    per_rank: int | None = field(default=None, compare=False)
    """Parameters that each rank of LoRA adds on all of these layers; null where none fits, and in earlier scans."""
    members: str | None = field(default=None, compare=False)
    """The layers one by one, by the indices in their paths, with the parameters that each rank of LoRA adds on each:
    ``0-31:8192``, in nested stacks ``0.0-2:1024 1.0-3:2048``; ``*4`` behind a size is the number of groups, which
    divides the rank, ``+64`` parameters trained at any rank; without a size no adapter fits. Null in earlier scans."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """The number of blocks of one kind with a matched layer; blocks are of one kind if they hold the same layers."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    block: str
    """Path pattern, with the classes that distinguish this kind from others there:
    ``model.layers.* (NemotronHAttention)``."""
    hit: int
    """Blocks with at least one matched layer."""
    of: int
    """Blocks of this kind."""
    tower: Tower | None = None
    """Tower of most of the layers in these blocks; null in earlier scans."""


def find_towers(blocks: Iterable[str], layers: Iterable[tuple[str, Tower, int]]) -> dict[str, Tower | None]:
    """Return the tower of most of the layers in blocks, by the name of each kind of them.

    Args:
        blocks: Names of kinds of blocks.
        layers: Path patterns of layers with their tower and number.
    """
    known = [*layers]
    towers = {tower for _, tower, _ in known}
    if len(towers) == 1:
        return dict.fromkeys(blocks, *towers)
    found: dict[str, Tower | None] = {}
    for name in blocks:
        start, votes = f"{name.partition(' ')[0]}.", Counter[Tower]()
        for pattern, tower, count in known:
            if f"{pattern}.".startswith(start):
                votes[tower] += count
        found[name] = votes.most_common(1)[0][0] if votes else None
    return found


BlockKind = tuple[str, frozenset[tuple[str, str]]]
"""Path pattern of a block, and (path inside, kind) of each layer it holds."""

_NO_STRUCTURE = ("norm", "embedding", "other")
"""Kinds that do not distinguish blocks: the first block of a stack alone may hold a table of positions."""


class Blocks:
    """The repeated blocks of a model, grouped by kind."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        contents: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for layer in layers:
            if layer.block:
                inside = contents[layer.block]
                if layer.kind not in _NO_STRUCTURE:
                    inside.add((pattern_of(layer.path.removeprefix(f"{layer.block}.")), layer.kind))
        self._kinds = {block: (pattern_of(block), frozenset(inside)) for block, inside in contents.items()}
        self._names = _names_of_kinds(layers, self._kinds)
        self._sizes = {layer.path: prod(layer.shape) for layer in layers if layer.depth and layer.tied_to is None}
        self._total = sum(self._sizes.values())
        counts = Counter((pattern_of(layer.path), layer.tower) for layer in layers)
        numbered = ((pattern, tower, count) for (pattern, tower), count in counts.items())
        self._towers = find_towers(dict.fromkeys(self._names.values()), numbered)

    def cover(self, matched: Iterable[Layer]) -> tuple[Coverage, ...]:
        """Return the coverage of each kind of block by the matched layers, in model order."""
        covered = {layer.block for layer in matched if layer.block}
        totals, hits = Counter[str](), Counter[str]()
        for block, kind in self._kinds.items():  # kinds that no class distinguishes share a name
            totals[self._names[kind]] += 1
            hits[self._names[kind]] += block in covered
        return tuple(Coverage(name, hits[name], count, self._towers[name]) for name, count in totals.items())

    def share(self, matched: Iterable[Layer]) -> float:
        """Return the share of the blocks' weights that the matched layers own, 0 to 1; tied weights count once.

        An adapter on ``nn.MultiheadAttention`` adapts its ``out_proj`` too.
        """
        paths = {layer.path for layer in matched}
        paths |= {f"{layer.path}.out_proj" for layer in matched if layer.kind == "multihead_attention"}
        size = sum(self._sizes.get(path, 0) for path in paths)
        return round(size / self._total, 6) if self._total else 0.0


def _names_of_kinds(layers: Iterable[Layer], kinds: dict[str, BlockKind]) -> dict[BlockKind, str]:
    """Name each kind by its path pattern; where several share one, add the classes that not all of them hold."""
    owners: dict[BlockKind, dict[str, None]] = {kind: {} for kind in kinds.values()}
    for layer in layers:
        if layer.block and layer.kind not in _NO_STRUCTURE:
            owners[kinds[layer.block]][layer.owner] = None

    return {kind: _name_of_kind(kind, owners) for kind in owners}


def _name_of_kind(kind: BlockKind, owners: Mapping[BlockKind, Mapping[str, None]]) -> str:
    siblings = [classes for other, classes in owners.items() if other[0] == kind[0] and other != kind]
    shared = set(owners[kind]).intersection(*siblings)
    telling = [owner for owner in owners[kind] if owner not in shared]
    return f"{kind[0]} ({', '.join(telling)})" if siblings and telling else kind[0]


def stack_layers(layers: Iterable[Layer], hits: Collection[str]) -> dict[str, Stack]:
    """Return the shares of layers that are hit, by stack of a tower, kind of layer, and number of the block there.

    Norms are left out unless they are hit. What is in no block is a stack of one.
    """
    numbers: dict[str, dict[str | None, int]] = defaultdict(dict)
    found: dict[str, dict[tuple[str, str], dict[int, list[bool]]]] = defaultdict(dict)
    for layer in layers:
        if layer.role == "norm" and layer.path not in hits:
            continue
        name = f"{layer.tower} · {pattern_of(layer.block) if layer.block else 'outside blocks'}"
        number = numbers[name].setdefault(layer.block, len(numbers[name]))
        inside = pattern_of(layer.path.removeprefix(f"{layer.block}."))
        found[name].setdefault((layer.role, inside), {}).setdefault(number, []).append(layer.path in hits)
    return {
        name: {row: {number: sum(each) / len(each) for number, each in cells.items()} for row, cells in rows.items()}
        for name, rows in found.items()
    }


SLOT_EXAMPLE: Slot = Slot("language", "attention.query", "linear", "model.layers.*.self_attn.q_proj", 32, live=True)
