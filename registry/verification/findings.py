"""What is wrong with a target spec on one scan, and what is worth knowing: one small function per belief.

A *defect* makes a mapping partial: somebody who uses it trains less, or something else, than they think. A *remark*
is true and of use, but no fault.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

from ...domain.patterns import pattern_of
from ...domain.scans import Layer
from ...domain.targets import TargetSpec
from ...domain.vocabulary import Role
from .matching import NOT_A_LAYER, Hit, is_dead

NAMED_AT_MOST = 3
"""How many patterns or roles a finding names before it only counts the rest."""

ROLE_ORDER = get_args(Role)

OUTSIDE: dict[Role, str] = {
    "head": "head",
    "moe.router": "router",
    "embedding.token": "embedding",
    "embedding.position": "embedding",
    "embedding.patch": "embedding",
    "projector": "projector",
}
"""Roles that no preset adapts, and what they are called."""

WHOLE_MODEL = ("default", "all-linear")
"""Presets that mean to reach every block; the others ask for one part of it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about a mapping, in words, and whether it is a defect."""

    says: str
    is_defect: bool = True


@dataclass(frozen=True)
class Case:
    """What is judged.

    Attributes:
        hits: What the spec hits.
        expected: Layers the scan's own proposal for the same method and preset hits.
        reachable: Layers any of the scan's proposals for the method hits; nothing is missed if there are none.
    """

    spec: TargetSpec
    peft_type: str
    preset: str
    hits: tuple[Hit, ...]
    expected: tuple[Layer, ...]
    reachable: tuple[Layer, ...]

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """Every layer hit, by path."""
        return {layer.path: layer for hit in self.hits for layer in hit.layers}

    @cached_property
    def home(self) -> frozenset[str]:
        """The towers the scan's proposals stay in."""
        return frozenset(layer.tower for layer in self.reachable)

    @cached_property
    def by_target(self) -> dict[str, list[Hit]]:
        """Every target in the order of the spec, with what it hits."""
        found: dict[str, list[Hit]] = {target: [] for target in self.spec.list_targets()}
        for hit in self.hits:
            found[hit.target].append(hit)
        return found

    def is_stray(self, target: str, layer: Layer) -> bool:
        """Tell whether a target that goes where it should hits ``layer`` besides; one that goes only there means to."""
        return any(self._is_at_home(other) for hit in self.by_target[target] for other in hit.layers if other != layer)

    def _is_at_home(self, layer: Layer) -> bool:
        return layer.role not in OUTSIDE and (not self.home or layer.tower in self.home)


def judge(case: Case) -> Iterator[Finding]:
    """Yield every finding: first per target, then about the whole."""
    for target, hits in case.by_target.items():
        yield from _a_target_hits_nothing(target, hits)
        yield from _modules_own_no_weight(target, hits)
        yield from _kinds_do_not_fit(target, hits, case.peft_type)
        yield from _layers_are_dead(target, hits)
        yield from _kernels_bypass_layers(target, hits)
    yield from _other_towers_are_reached(case)
    yield from _parts_outside_are_reached(case)
    yield from _layers_of_a_role_are_missed(case)
    yield from _blocks_are_skipped(case)
    yield from _experts_are_left(case)
    yield from _feedforward_fits_the_targets(case)


def _a_target_hits_nothing(target: str, hits: list[Hit]) -> Iterator[Finding]:
    if not hits:
        yield Finding(f"{target} matches nothing")


def _modules_own_no_weight(target: str, hits: list[Hit]) -> Iterator[Finding]:
    """PEFT raises for what it cannot adapt, a dropout or a container; half of an ``nn.MultiheadAttention`` is dead."""
    bare = [hit for hit in hits if hit.kind == NOT_A_LAYER and not hit.layers]
    if bare:
        where = _patterns(hit.path for hit in bare)
        yield Finding(f"{target} hits {_count(len(bare), 'module')} no adapter can live on: {where}")


def _kinds_do_not_fit(target: str, hits: list[Hit], peft_type: str) -> Iterator[Finding]:
    kinds = Counter(hit.kind for hit in hits if hit.layers and not hit.is_fit(peft_type))
    for kind, count in kinds.items():
        yield Finding(f"{target} hits {_layers(count, kind)}, which {peft_type} does not adapt")


def _layers_are_dead(target: str, hits: list[Hit]) -> Iterator[Finding]:
    every = [layer for hit in hits for layer in hit.layers]
    for why, count in Counter(_why_dead(layer) for layer in every if is_dead(layer)).items():
        yield Finding(f"{target} is dead in {count} of {_layers(len(every))}: {why}")


def _why_dead(layer: Layer) -> str:
    if layer.bypassed:
        return f"weight read directly at {layer.bypassed}, never called"
    return f"no gradient: {layer.proof}" if layer.proof else "no gradient" if layer.live is False else "never called"


def _kernels_bypass_layers(target: str, hits: list[Hit]) -> Iterator[Finding]:
    """An adapter is live here and dead on a machine that has the kernel, without a word."""
    kernels = Counter(layer.kernel for hit in hits for layer in hit.layers if layer.kernel)
    for kernel, count in kernels.items():
        yield Finding(f"{target} is bypassed in {_layers(count)} under {kernel}")


def _other_towers_are_reached(case: Case) -> Iterator[Finding]:
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    strays: set[str] = set()
    for target, layer in _layers_with_targets(case):
        if case.home and layer.tower not in case.home and layer.role not in OUTSIDE:
            found[layer.tower][target].add(layer.path)
            strays |= {layer.tower} if case.is_stray(target, layer) else set()
    for tower, targets in found.items():
        count = len(set().union(*targets.values()))
        yield Finding(f"reaches {_layers(count, tower)}: {', '.join(targets)}", tower in strays)


def _parts_outside_are_reached(case: Case) -> Iterator[Finding]:
    found: dict[str, list[Layer]] = defaultdict(list)
    strays: set[str] = set()
    proposed = {layer.path for layer in case.reachable}
    for target, layer in _layers_with_targets(case):
        if layer.role in OUTSIDE and layer.path not in proposed:
            part = OUTSIDE[layer.role]
            found[part].append(layer)
            strays |= {part} if case.is_stray(target, layer) else set()
    for part, layers in found.items():
        yield Finding(f"reaches the {part}: {_patterns(layer.path for layer in layers)}", part in strays)


def _layers_with_targets(case: Case) -> Iterator[tuple[str, Layer]]:
    return ((hit.target, layer) for hit in case.hits for layer in hit.layers)


def _layers_of_a_role_are_missed(case: Case) -> Iterator[Finding]:
    """Who adapts one layer with a role adapts all of them, as far as the scan would."""
    roles: dict[tuple[str, Role], list[Layer]] = defaultdict(list)
    for layer in case.reachable:
        roles[layer.tower, layer.role].append(layer)
    for (_, role), layers in roles.items():
        missed = [layer for layer in layers if layer.path not in case.layers]
        if role != "other" and 0 < len(missed) < len(layers):
            share = f"{len(layers) - len(missed)} of {_layers(len(layers))}"
            yield Finding(f"covers {role} in {share}; missed: {_patterns(layer.path for layer in missed)}")


def _blocks_are_skipped(case: Case) -> Iterator[Finding]:
    """A hybrid has its attention in a few blocks of a list; that is a defect if the scan's own answer goes further."""
    reached = _blocks(case.reachable) & _blocks(case.layers.values())
    expected = _blocks(case.expected)
    lists = {_parent(block) for block in reached}
    every = expected | {block for block in _blocks(case.reachable) if _parent(block) in lists}
    if case.preset in WHOLE_MODEL and reached and every - reached:
        others = Counter(layer.role for layer in case.reachable if _block(layer) in every - reached)
        common = {layer.role for layer in case.reachable if _block(layer) in reached}
        ordered = sorted(others, key=lambda role: (role in common, ROLE_ORDER.index(role)))
        held = _some([f"{role} ({others[role]})" for role in ordered])
        share = f"reaches {len(reached)} of {_count(len(every), 'block')}"
        yield Finding(f"{share}; the others hold {held}", bool(expected - reached))


def _blocks(layers: Iterable[Layer]) -> frozenset[str]:
    return frozenset(block for layer in layers if (block := _block(layer)))


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _block(layer: Layer) -> str | None:
    """Return the outermost repeated block around a layer: the experts of a block are no blocks of their own."""
    segments = (layer.block or "").split(".")
    first = next((n for n, segment in enumerate(segments) if segment.isdecimal()), None)
    return None if first is None else ".".join(segments[: first + 1])


def _experts_are_left(case: Case) -> Iterator[Finding]:
    """Fused experts are parameters: a name that hits the dense and shared feed-forward layers passes them by."""
    hit = {layer.role.partition(".")[0] for layer in case.layers.values()}
    experts = Counter(layer.role for layer in case.reachable if layer.role.startswith("expert."))
    if case.preset in WHOLE_MODEL and experts and "mlp" in hit and "expert" not in hit:
        yield Finding(f"leaves the experts: {_some([f'{role} ({n})' for role, n in experts.items()])}", is_defect=False)


def _feedforward_fits_the_targets(case: Case) -> Iterator[Finding]:
    """IA3 scales these at the input; PEFT tells them by the end of the path alone (``ia3/model.py``, 0.21.2)."""
    named = case.spec.feedforward_modules
    if named is None or isinstance(named, str):
        return
    for name in named:
        ends = [hit for hit in case.hits if hit.path.endswith(name)]
        if isinstance(case.spec.target_modules, tuple) and name not in case.spec.target_modules:
            yield Finding(f"feedforward {name} is none of the targets, which PEFT refuses")
        elif not ends:
            yield Finding(f"feedforward {name} matches nothing")
        roles = Counter(layer.role for hit in ends for layer in hit.layers if layer.role.startswith("attention."))
        for role, count in roles.items():
            yield Finding(f"feedforward {name} hits {_layers(count, role)}", is_defect=False)


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _layers(count: int, of: str = "") -> str:
    return _count(count, f"{of} layer".strip())


def _patterns(paths: Iterable[str]) -> str:
    return _some([*dict.fromkeys(map(pattern_of, paths))])


def _some(names: Collection[str]) -> str:
    """Return the first names, and how many more there are."""
    shown = [*names][:NAMED_AT_MOST]
    left = len(names) - len(shown)
    return ", ".join(shown) + (f" and {left} more" if left else "")
