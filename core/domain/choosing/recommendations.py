"""Recommendations: the family of an architecture, and the layers that train best in it (``data/recommendations.toml``).

A family follows from the roles, towers and blocks of the layers, so that stored slots show it as well as a scan.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import NamedTuple, Self

from ...data import read_facts
from ..layers import Layer, Slot
from ..mappings import Recipe, Recommendation, Strength
from ..patterns import OPEN, list_prefixes, pattern_of
from ..presets import (
    ATTENTION,
    CONVOLUTIONS,
    EXPERT,
    MIXER,
    MLP,
    QUERY_VALUE,
    all_linear,
    choose_layers,
    every_convolution,
)
from ..selection import Choice
from ..targets import Formula
from ..vocabulary import RECOMMENDED, Kind, Preset, Role, Tower, count_of, list_some

ENOUGH = 0.9
"""The share of the blocks that recommended layers are to reach."""
HALF = 0.5
"""The share of the blocks below which PEFT's convention is no default."""
WRITERS = ("ForCausalLM", "LMHeadModel", "Decoder", "ForConditionalGeneration", "ForGeneration")
READERS = ("ForMaskedLM", "ForPreTraining", "Classification", "ForQuestionAnswering", "Encoder", "WithProjection")
"""Ends of the names of transformers' task classes, which state whether a dense language model writes or reads."""
SENSES: frozenset[Tower] = frozenset({"vision", "audio"})


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule of one family."""

    name: str
    says: str
    """How it is recognised, in words."""
    layers: tuple[Preset, ...]
    """The presets whose layers are adapted together."""
    why: str
    strength: Strength
    sources: tuple[str, ...]
    tight: Preset
    """The preset for a tight budget."""
    recipe: Recipe
    note: str = ""
    narrow: bool = False
    """Whether blocks without these layers stay as they are."""


@cache
def read_rules() -> dict[str, Rule]:
    """Return the rules by family, in the order in which they are tried."""
    facts = read_facts("recommendations.toml")
    recipes = {name: Recipe(**{**values, "notes": tuple(values["notes"])}) for name, values in facts["recipes"].items()}
    rules = {}
    for family in facts["family"]:
        lists = {name: tuple(family[name]) for name in ("layers", "sources")}
        rules[family["name"]] = Rule(**{**family, **lists, "recipe": recipes[family["recipe"]]})
    return rules


# --- the family -------------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """What layers of one slot have in common."""

    tower: Tower
    role: Role
    kind: Kind
    pattern: str

    @property
    def stack(self) -> str:
        """The path of the outermost list of blocks around it; empty outside every block."""
        return self.pattern.partition(f".{OPEN}.")[0] if f".{OPEN}." in self.pattern else ""


@dataclass(frozen=True)
class Structure:
    """The labelled layers of an architecture.

    Attributes:
        counts: The number of layers of each part.
        towers: The towers that are adapted.
        class_name: Class of the model; empty if unknown.
    """

    counts: Mapping[Part, int]
    towers: frozenset[Tower]
    class_name: str = ""

    @classmethod
    def of_layers(cls, layers: Iterable[Layer], towers: Collection[Tower], class_name: str | None = "") -> Self:
        """Return the structure of labelled layers."""
        counts = Counter(Part(x.tower, x.role, x.kind, pattern_of(x.path)) for x in layers)
        return cls(counts, frozenset(towers), class_name or "")

    @classmethod
    def of_slots(cls, slots: Iterable[Slot], towers: Collection[Tower], class_name: str | None = "") -> Self:
        """Return the structure of stored slots."""
        counts: Counter[Part] = Counter()
        for slot in slots:
            counts[Part(slot.tower, slot.role, slot.kind, slot.pattern)] += slot.count
        return cls(counts, frozenset(towers), class_name or "")

    @cached_property
    def own(self) -> dict[Part, int]:
        """The parts inside the blocks of the adapted towers."""
        return {part: count for part, count in self.counts.items() if part.tower in self.towers and part.stack}

    @cached_property
    def roles(self) -> Counter[Role]:
        """The number of layers inside these blocks, by role."""
        sums: Counter[Role] = Counter()
        for part, count in self.own.items():
            sums[part.role] += count
        return sums

    @cached_property
    def others(self) -> frozenset[Tower]:
        """The towers left alone that hold attention or convolutions."""
        telling = ATTENTION | CONVOLUTIONS | MLP
        return frozenset(part.tower for part in self.counts if part.role in telling) - self.towers

    def has(self, roles: Collection[Role]) -> bool:
        """Return whether a block holds a layer with one of these roles."""
        return any(role in self.roles for role in roles)

    @property
    def is_conditioned(self) -> bool:
        """Whether a condition such as a time modulates or enters a network that neither reads text nor images."""
        roles = {part.role for part in self.counts if part.tower in self.towers}
        return bool(roles & {"modulation", "embedding.condition"}) and self.towers <= {"main", "audio", "projector"}

    @property
    def is_parallel(self) -> bool:
        """Whether attention and a recurrence share blocks: together they are more than the blocks of their stack."""
        stacks = {part.stack for part in self.own if part.role in ATTENTION}
        most = self._count_most
        return any(most(x, MIXER) and most(x, ATTENTION) + most(x, MIXER) > most(x) for x in stacks)

    def _count_most(self, stack: str, roles: Collection[Role] = ()) -> int:
        """Return the largest number of layers of a part of a stack, with one of these roles, once in a block."""
        once = (x for x in self.own if x.stack == stack and x.pattern.count(OPEN) == 1)
        return max((self.own[part] for part in once if not roles or part.role in roles), default=0)

    @cached_property
    def convolved(self) -> tuple[int, int]:
        """The number of blocks with convolutions but no attention or feed-forward network, and that of all blocks."""
        dense = ATTENTION | MIXER | MLP | EXPERT
        roles: dict[str, set[Role]] = defaultdict(set)
        sizes: dict[str, int] = defaultdict(int)
        for part, count in (self.own or self.counts).items():
            block = part.pattern.rpartition(f".{OPEN}.")[0] or part.pattern
            roles[block].add(part.role)
            sizes[block] = max(sizes[block], count)
        bare = sum(sizes[block] for block, found in roles.items() if found & CONVOLUTIONS and not found & dense)
        return bare, sum(sizes[block] for block, found in roles.items() if found & (CONVOLUTIONS | dense))

    @property
    def is_crossed(self) -> bool:
        """Whether the blocks of one stack hold one attention more than those of another, which they read."""
        attentions: dict[str, set[str]] = defaultdict(set)
        for part in self.own:
            if part.role in QUERY_VALUE:
                is_whole = part.kind == "multihead_attention"
                attentions[part.stack].add(part.pattern if is_whole else part.pattern.rpartition(".")[0])
        return len(attentions) > 1 and len({len(found) for found in attentions.values()}) > 1

    @property
    def is_writer(self) -> bool:
        """Whether a dense language model writes text: by its task class, or as its feed-forward networks are gated."""
        if self.class_name.endswith(READERS):
            return False
        return self.class_name.endswith(WRITERS) or self.has({"mlp.gate", "mlp.gate_up"})


TELLS: dict[str, Callable[[Structure], bool]] = {
    "state-space": lambda x: x.has(MIXER) and not x.has(ATTENTION),
    "parallel-hybrid": lambda x: x.has(MIXER) and "audio" not in x.towers and x.is_parallel,
    "sequential-hybrid": lambda x: x.has(MIXER) and "audio" not in x.towers,
    "mixture-of-experts": lambda x: x.has(EXPERT),
    "diffusion-unet": lambda x: x.is_conditioned and x.convolved[0] > 0,
    "diffusion-transformer": lambda x: x.is_conditioned,
    "dual-encoder": lambda x: "language" in x.towers and bool(x.towers & SENSES),
    "vision-language": lambda x: x.towers == {"language"} and bool(x.others & SENSES),
    "speech": lambda x: "audio" in x.towers,
    "detector": lambda x: "vision" in x.towers and x.is_crossed,
    "convolutional": lambda x: 2 * x.convolved[0] > x.convolved[1],
    "vision-transformer": lambda x: "vision" in x.towers,
    "encoder-decoder": lambda x: x.is_crossed,
    "decoder": lambda x: "language" in x.towers and x.is_writer,
    "encoder": lambda x: "language" in x.towers,
}
"""What tells each family from those after it."""


def find_rule(structure: Structure) -> Rule:
    """Return the rule of the first family that a structure is of."""
    rules = read_rules()
    return next((rule for name, rule in rules.items() if name in TELLS and TELLS[name](structure)), rules["other"])


def advise(rule: Rule, more: Collection[str], less: Collection[str], formula: Formula | None) -> Recommendation:
    """Return what a rule recommends beside other layers.

    Args:
        rule: The rule of the family.
        more: The roles of the layers it adapts beyond these.
        less: The roles of those it leaves out.
        formula: The parameters that its layers train.
    """
    parts = []
    if more:
        parts.append(f"also adapts {list_some(more, 5)}")
    if less:
        parts.append(f"leaves out {list_some(less, 5)}")
    differences = f"preset {RECOMMENDED!r} {' and '.join(parts)}" if parts else "these are the recommended layers"
    return Recommendation(
        family=rule.name,
        preset=RECOMMENDED,
        text=f"{rule.says} (evidence: {rule.strength}): {differences}",
        why=rule.why,
        strength=rule.strength,
        sources=rule.sources,
        note=rule.note,
        tight=rule.tight,
        formula=formula,
        recipe=rule.recipe,
    )


# --- the layers -------------------------------------------------------------------------------------------------------


def choose_recommended(candidates: Sequence[Layer], layers: Iterable[Layer]) -> Choice:
    """Return the layers of one tower that train best in its family.

    Args:
        candidates: The layers of the tower that may be adapted.
        layers: All layers of the model.
    """
    tower = candidates[0].tower
    rule = find_rule(Structure.of_layers((x for x in layers if x.tower == tower), {tower}))
    chosen, why = _join(candidates, *(choose_layers(candidates, preset)[0] for preset in rule.layers)), rule.why
    running = [layer for layer in candidates if not layer.is_uncalled]  # the blocks to reach, and what may be added
    if not _is_enough(chosen, running):
        wider = _join(candidates, chosen, all_linear(running)[0])
        why += "; and the other dense layers, as too few blocks have these" if len(wider) > len(chosen) else ""
        chosen = wider
    if not rule.narrow and not _is_enough(chosen, running):
        wider = _join(candidates, chosen, every_convolution(running)[0])
        why += "; and the convolutions, as many blocks have nothing else" if len(wider) > len(chosen) else ""
        chosen = wider
    return Choice("LORA", chosen, why, preset=RECOMMENDED)


def _join(candidates: Iterable[Layer], *groups: Iterable[Layer]) -> tuple[Layer, ...]:
    """Return the layers of all groups in the order of the model."""
    paths = {layer.path for group in groups for layer in group}
    return tuple(layer for layer in candidates if layer.path in paths)


def _is_enough(chosen: Iterable[Layer], candidates: Iterable[Layer]) -> bool:
    hit, of = count_reached(chosen, candidates)
    return hit >= ENOUGH * of


def count_reached(chosen: Iterable[Layer], candidates: Iterable[Layer]) -> tuple[int, int]:
    """Return the number of blocks with a chosen layer, and of blocks with a layer that may be adapted.

    A block inside another counts for itself unless it holds a single layer, as each step of a sequence does.
    """
    inside = Counter(layer.block for layer in candidates if layer.block)
    blocks = {x for x, n in inside.items() if n > 1 or not any(part in inside for part in list_prefixes(x)[:-1])}
    reached = {part for layer in chosen for part in list_prefixes(layer.path)}
    return len(blocks & reached), len(blocks)


def prefer_recommended(default: Choice, recommended: Choice, candidates: Sequence[Layer]) -> Choice:
    """Return the recommended layers as the default where PEFT's convention reaches less than half of the blocks."""
    hit, of = count_reached(default.layers, candidates)
    if hit >= HALF * of or not recommended.layers:
        return default
    why = f"PEFT's convention reaches {hit} of {count_of(of, 'block')}, and PEFT has no entry: as recommended"
    return replace(recommended, preset="default", why=f"{why}, {recommended.why}")
