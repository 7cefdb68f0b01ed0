"""Find defects and remarks about a target spec on one scan: one small function per belief.

A *defect* makes a mapping partial: its user trains less than intended, or something else. A *remark* is useful, but
not a defect. The texts are stored with verifications and are part of the packaged catalog.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import get_args

from ...domain.layers import Layer
from ...domain.patterns import pattern_of
from ...domain.targets import TargetSpec
from ...domain.vocabulary import Role, count_layers, count_of, list_some
from .matching import NOT_A_LAYER, Match, is_dead

ROLE_ORDER = get_args(Role)

OUTSIDE: dict[Role, str] = {
    "head": "head",
    "moe.router": "router",
    "embedding.token": "embedding",
    "embedding.position": "embedding",
    "embedding.patch": "embedding",
    "embedding.condition": "embedding",
    "modulation": "modulation",
    "projector": "projector",
}
"""Roles that no preset but ``everything`` adapts, with the name of the part they belong to."""

WHOLE_MODEL = ("default", "all-linear")
"""Presets intended to reach every block; the others select one part of it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about a mapping, in words.

    Attributes:
        text: The fact.
        is_defect: Whether it makes the mapping partial.
        is_by_name: Whether it follows from paths and kinds of layers alone, whatever ran.
    """

    text: str
    is_defect: bool = True
    is_by_name: bool = False


@dataclass(frozen=True)
class Case:
    """A target spec with its matches on a scan.

    Attributes:
        matches: The matches of the spec.
        expected: Layers that the scan's own proposal for the same method and preset matches.
        reachable: Layers that any of the scan's proposals for the method matches, that for ``everything`` only in its
            own case; if empty, no layer counts as missed.
        subject: The class that was scanned.
        elsewhere: Other builds of the architecture on which a target without a match has one, by target.
        own: Path patterns that only the scanned class has, of all with the same configuration.
    """

    spec: TargetSpec
    peft_type: str
    preset: str
    matches: tuple[Match, ...]
    expected: tuple[Layer, ...]
    reachable: tuple[Layer, ...]
    subject: str = ""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    own: Collection[str] = ()

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """Every matched layer, by path."""
        return {layer.path: layer for match in self.matches for layer in match.layers}

    @cached_property
    def home(self) -> frozenset[str]:
        """The towers of the scan's proposals."""
        return frozenset(layer.tower for layer in self.reachable)

    @cached_property
    def by_target(self) -> dict[str, list[Match]]:
        """The matches of every target, in the order of the spec."""
        found: dict[str, list[Match]] = {target: [] for target in self.spec.list_targets()}
        for match in self.matches:
            found[match.target].append(match)
        return found

    def targeted_layers(self) -> Iterator[tuple[str, Layer]]:
        """Yield every matched layer with the target that matches it."""
        return ((match.target, layer) for match in self.matches for layer in match.layers)

    def is_stray(self, target: str, layer: Layer) -> bool:
        """Return whether a target with matches inside the proposed towers and blocks also matches ``layer``.

        A target that matches outside of them alone is assumed to be intended.
        """
        others = (other for match in self.by_target[target] for other in match.layers if other != layer)
        return any(other.role not in OUTSIDE and (not self.home or other.tower in self.home) for other in others)


CUT_SHORT = Finding("the scan ran out of time: what it did not see is not known", is_defect=False, is_by_name=True)


def collect_findings(case: Case) -> Iterator[Finding]:
    """Yield every finding: first those per target, then those about the whole spec."""
    for target, matches in case.by_target.items():
        yield from _target_matches_nothing(case, target, matches)
        yield from _modules_own_no_weight(target, matches)
        yield from _kinds_do_not_fit(target, matches, case.peft_type)
        yield from _layers_are_dead(target, matches)
        yield from _kernels_bypass_layers(target, matches)
    yield from _other_towers_are_reached(case)
    yield from _parts_outside_are_reached(case)
    yield from _layers_of_a_role_are_missed(case)
    yield from _blocks_are_skipped(case)
    yield from _experts_are_left(case)
    named = case.spec.feedforward_modules
    for name in named if isinstance(named, tuple) else ():
        yield from _feedforward_fits_the_targets(case, name)


def _target_matches_nothing(case: Case, target: str, matches: list[Match]) -> Iterator[Finding]:
    if matches:
        return
    if target in case.elsewhere:
        where = f"{case.subject} of the default configuration" if case.subject else "the default configuration"
        text = f"{target} matches nothing on {where}; it is for {case.elsewhere[target]}"
        yield Finding(text, is_defect=False, is_by_name=True)
    else:
        yield Finding(f"{target} matches nothing", is_by_name=True)


def _modules_own_no_weight(target: str, matches: list[Match]) -> Iterator[Finding]:
    """PEFT raises on a dropout or a container; the inner layer of an ``nn.MultiheadAttention`` alone is dead."""
    bare = [match for match in matches if match.kind == NOT_A_LAYER and not match.layers]
    if bare:
        where = _patterns(match.path for match in bare)
        yield Finding(f"{target} hits {count_of(len(bare), 'module')} no adapter can live on: {where}", is_by_name=True)


def _kinds_do_not_fit(target: str, matches: list[Match], peft_type: str) -> Iterator[Finding]:
    kinds = Counter(m.kind for m in matches if m.layers and not m.is_fit(peft_type))
    for kind, count in kinds.items():
        yield Finding(f"{target} hits {count_layers(count, kind)}, which {peft_type} does not adapt", is_by_name=True)


def _layers_are_dead(target: str, matches: list[Match]) -> Iterator[Finding]:
    every = [layer for match in matches for layer in match.layers]
    reasons = Counter[str]()
    for layer in filter(is_dead, every):
        if layer.bypassed:
            reasons[f"weight read directly at {layer.bypassed}, never called"] += 1
        elif layer.proof:
            reasons[f"no gradient: {layer.proof}"] += 1
        else:
            reasons["no gradient" if layer.live is False else "never called"] += 1
    for reason, count in reasons.items():
        yield Finding(f"{target} is dead in {count} of {count_layers(len(every))}: {reason}")


def _kernels_bypass_layers(target: str, matches: list[Match]) -> Iterator[Finding]:
    """An adapter is live here, and silently dead on a machine that has the kernel."""
    kernels = Counter(layer.kernel for match in matches for layer in match.layers if layer.kernel)
    for kernel, count in kernels.items():
        yield Finding(f"{target} is bypassed in {count_layers(count)} under {kernel}")


def _other_towers_are_reached(case: Case) -> Iterator[Finding]:
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    strays: set[str] = set()
    for target, layer in case.targeted_layers():
        if case.home and layer.tower not in case.home and layer.role not in OUTSIDE:
            found[layer.tower][target].add(layer.path)
            strays |= {layer.tower} if case.is_stray(target, layer) else set()
    for tower, targets in found.items():
        count = len(set().union(*targets.values()))
        yield Finding(f"reaches {count_layers(count, tower)}: {', '.join(targets)}", tower in strays)


def _parts_outside_are_reached(case: Case) -> Iterator[Finding]:
    found: dict[str, list[Layer]] = defaultdict(list)
    strays: set[str] = set()
    proposed = {layer.path for layer in case.reachable}
    for target, layer in case.targeted_layers():
        if layer.role in OUTSIDE and layer.path not in proposed:
            part = OUTSIDE[layer.role]
            found[part].append(layer)
            strays |= {part} if case.is_stray(target, layer) else set()
    for part, layers in found.items():
        paths = _patterns(layer.path for layer in layers)
        if case.own and all(pattern_of(layer.path) in case.own for layer in layers):
            text = f"reaches the {part} of {case.subject}: {paths}; another class of the type has no such layer"
            yield Finding(text, is_defect=False)
        else:
            yield Finding(f"reaches the {part}: {paths}", part in strays)


def _layers_of_a_role_are_missed(case: Case) -> Iterator[Finding]:
    """A spec that adapts one layer of a role should adapt all that the scan proposes.

    The scan's own proposal may adapt some of a role only because they have the names of others, in blocks that only an
    index would tell apart; who adapts these as well misses nothing.
    """
    expected = {layer.path for layer in case.expected}
    roles: dict[tuple[str, Role], list[Layer]] = defaultdict(list)
    for layer in case.reachable:
        roles[layer.tower, layer.role].append(layer)
    for (_, role), layers in roles.items():
        missed = [layer for layer in layers if layer.path not in case.layers]
        if role != "other" and 0 < len(missed) < len(layers):
            share = f"{len(layers) - len(missed)} of {count_layers(len(layers))}"
            is_as_proposed = not expected.isdisjoint(layer.path for layer in layers) and not any(
                layer.path in expected for layer in missed
            )
            text = f"covers {role} in {share}; missed: {_patterns(layer.path for layer in missed)}"
            yield Finding(text, not is_as_proposed)


def _blocks_are_skipped(case: Case) -> Iterator[Finding]:
    """A hybrid has attention in a few blocks of a list; skipping others is a defect if the scan's proposal has them."""
    reached = _blocks(case.reachable) & _blocks(case.layers.values())
    expected = _blocks(case.expected)
    lists = {_parent(block) for block in reached}
    every = expected | {block for block in _blocks(case.reachable) if _parent(block) in lists}
    if case.preset in WHOLE_MODEL and reached and every - reached:
        others = Counter(layer.role for layer in case.reachable if _block(layer) in every - reached)
        common = {layer.role for layer in case.reachable if _block(layer) in reached}
        ordered = sorted(others, key=lambda role: (role in common, ROLE_ORDER.index(role)))
        missing = list_some([f"{role} ({others[role]})" for role in ordered])
        share = f"reaches {len(reached)} of {count_of(len(every), 'block')}"
        yield Finding(f"{share}; the others hold {missing}", bool(expected - reached))


def _blocks(layers: Iterable[Layer]) -> frozenset[str]:
    return frozenset(block for layer in layers if (block := _block(layer)))


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _block(layer: Layer) -> str | None:
    """Return the outermost repeated block around a layer: the experts of a block are not blocks themselves."""
    segments = (layer.block or "").split(".")
    first = next((n for n, segment in enumerate(segments) if segment.isdecimal()), None)
    return None if first is None else ".".join(segments[: first + 1])


def _experts_are_left(case: Case) -> Iterator[Finding]:
    """Fused experts are parameters: a name that matches dense and shared feed-forward layers does not match them."""
    families = {layer.role.partition(".")[0] for layer in case.layers.values()}
    experts = Counter(layer.role for layer in case.reachable if layer.role.startswith("expert."))
    if case.preset in WHOLE_MODEL and experts and "mlp" in families and "expert" not in families:
        yield Finding(
            f"leaves the experts: {list_some([f'{role} ({n})' for role, n in experts.items()])}", is_defect=False
        )


def _feedforward_fits_the_targets(case: Case, name: str) -> Iterator[Finding]:
    """IA3 scales these at the input; PEFT identifies them by the end of the path alone (``ia3/model.py``, 0.21.2)."""
    ends = [match for match in case.matches if match.path.endswith(name)]
    if isinstance(case.spec.target_modules, tuple) and name not in case.spec.target_modules:
        yield Finding(f"feedforward {name} is none of the targets, which PEFT refuses", is_by_name=True)
    elif not ends:
        yield Finding(f"feedforward {name} matches nothing", is_by_name=True)
    roles = Counter(layer.role for match in ends for layer in match.layers if layer.role.startswith("attention."))
    for role, count in roles.items():
        yield Finding(f"feedforward {name} hits {count_layers(count, role)}", is_defect=False)


def _patterns(paths: Iterable[str]) -> str:
    return list_some(dict.fromkeys(map(pattern_of, paths)))
