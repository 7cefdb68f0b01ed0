"""Find the faults of an adapter, each with the way out: one small function per kind of fault."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...domain.layers import Layer
from ...domain.patterns import find_indices, pattern_of
from ...domain.targets import TargetMatcher
from ...errors import TargetsNotFound
from ...weights.diagnoses import Finding
from ..config import AdapterConfig, LoraConfig
from ..injection.match import Match, match
from ..injection.plan import strengths
from .base import ADAPTABLE, Base, Place, Rename, matches
from .stored import Factors, StoredAdapter, Values

MEND = "loradar doctor ADAPTER --fix OUT writes it with these names."
MOST = 3


@dataclass(frozen=True)
class Case:
    """An adapter beside its model.

    Attributes:
        adapter: What is stored of the adapter.
        base: The layers of the model.
        config: Its configuration, if it is valid.
        renames: The renames by path pattern, of those that the model has not under their own.
        values: What the values of its factors show.
    """

    adapter: StoredAdapter
    base: Base | None
    config: AdapterConfig | None
    renames: Mapping[str, Rename]
    values: Values

    def path_of(self, factors: Factors) -> str:
        """Return the path in the model of a layer of the adapter: its own, if it has no other."""
        rename = self.renames.get(pattern_of(factors.path))
        return rename.apply(factors.path) if rename and rename.new else factors.path

    def places_of(self, factors: Factors) -> list[Place]:
        """Return the layers of the model that these factors may be for."""
        found = self.base.find_all(self.path_of(factors)) if self.base else []
        return [place for place in found if place.kind in ADAPTABLE]

    def is_fused(self, factors: Factors) -> bool:
        """Return whether these factors are for one expert, where the model has all experts in one parameter."""
        rename = self.renames.get(pattern_of(factors.path))
        kinds = {place.kind for place in self.places_of(factors)}
        return bool(rename and rename.parts and kinds == {"expert_parameter"})

    def rank_part(self, factors: Factors) -> int:
        """Return the position of these factors among the parts of a fused projection."""
        return self.renames[pattern_of(factors.path)].parts.index(factors.path.rpartition(".")[2])

    def list_landed(self) -> Iterator[tuple[Factors, list[Place]]]:
        """Yield the factors of layers that the model has, with these."""
        for factors in self.adapter.factors.values():
            if places := self.places_of(factors):
                yield factors, places


def find_faults(case: Case) -> Iterator[Finding]:
    """Yield the faults of an adapter."""
    yield from _find_wrappers(case)
    yield from _find_incomplete(case)
    yield from _find_values(case)
    yield from _find_strength(case)
    if case.base:
        yield from _find_names(case)
        yield from _find_unknown(case)
        yield from _find_shapes(case)
        yield from _find_targets(case)
        yield from _find_saved(case)


def _find_wrappers(case: Case) -> Iterator[Finding]:
    keys = case.adapter.unwrapped
    if keys:
        message = f"{len(keys)} keys hold names that are no part of the model, such as {keys[0]!r}"
        why = "a wrapper (torch.compile, DDP, FSDP) or an adapter's name got into the file, or PEFT's prefix is missing"
        yield Finding("wrappers", "error", f"{message}: {why}.", MEND, is_mended=True)


def _find_incomplete(case: Case) -> Iterator[Finding]:
    halves = [
        factors
        for factors in case.adapter.factors.values()
        if any(name.startswith("lora_") for name in factors.tensors) and factors.pair is None
    ]
    if halves:
        message = (
            f"{_count(halves, 'layer')} {'has' if len(halves) == 1 else 'have'} one factor of two: {_some(halves)}."
        )
        yield Finding("incomplete", "error", message, "Save or download the adapter again: the file is a part of it.")
    uneven = [f for f in case.adapter.factors.values() if f.pair and len({*f.ranks}) > 1]
    if uneven:
        ranks = " and ".join(map(str, uneven[0].ranks))
        message = f"The two factors of {_count(uneven, 'layer')} have different ranks: {_some(uneven)} has {ranks}."
        yield Finding("rank", "error", message, "Train it again: no update follows from such factors.")


def _find_values(case: Case) -> Iterator[Finding]:
    if case.values.invalid:
        message = f"{len(case.values.invalid)} tensors hold NaN or infinity, such as {case.values.invalid[0]!r}."
        yield Finding("values", "error", message, "Train it again from a checkpoint before the loss became NaN.")
    zero = case.values.zero
    pairs = sum(factors.pair is not None for factors in case.adapter.factors.values())
    if zero and len(zero) == pairs:
        message = "The second factor (B) of every layer is zero: the adapter changes nothing."
        way_out = (
            "It was saved before training, or its weights were not gathered (DeepSpeed ZeRO-3, FSDP): save it again."
        )
        yield Finding("zero", "error", message, way_out)
    elif zero:
        message = (
            f"The second factor (B) of {len(zero)} of {pairs} layers is zero, and changes nothing: {_names(zero)}."
        )
        yield Finding("zero", "warning", message, "They got no gradient: leave them out, or check why.")


def _find_strength(case: Case) -> Iterator[Finding]:
    """Yield where the configuration has another rank than the factors, or an alpha without effect."""
    if not isinstance(case.config, LoraConfig):
        return
    wrong: dict[tuple[int, int], list[Factors]] = defaultdict(list)
    for factors in case.adapter.factors.values():
        ranks = {*factors.ranks}
        if len(ranks) == 1 and not any(place.kind == "expert_parameter" for place in case.places_of(factors)):
            (stored,), ((stated, _, _),) = ranks, strengths(case.config, [factors.path])
            if stored != stated:
                wrong[stated, stored].append(factors)
    for (stated, stored), group in wrong.items():
        message = f"The configuration has rank {stated} for {_count(group, 'layer')} whose factors have rank {stored}"
        way_out = "loradar doctor ADAPTER --fix OUT writes the rank of the factors and keeps lora_alpha"
        way_out += f": the update is scaled by {stated / stored:g} of what the configuration has. Check lora_alpha."
        yield Finding("rank", "error", f"{message}: {_some(group)}.", way_out, is_mended=True)
    if case.config.lora_alpha == 0 or any(alpha == 0 for alpha in case.config.alpha_pattern.values()):
        message = "lora_alpha is 0: the update is scaled by 0 and changes nothing."
        yield Finding("alpha", "error", message, "Set lora_alpha in adapter_config.json to that of the training.")


def _find_names(case: Case) -> Iterator[Finding]:
    """Yield the layers that the model has under another name."""
    counts = Counter(pattern_of(factors.path) for factors in case.adapter.factors.values())
    prefix = _find_prefix(case, counts)
    if prefix:
        message = f"All layers are those of this model with another beginning: {prefix}."
        message += " The adapter is for the class with, or without, a head."
        way_out = f"Load it onto that class, such as AutoModel's, as it is. For this one, {MEND}"
        yield Finding("names", "warning", message, way_out, is_mended=True)
        return
    for rename in case.renames.values():
        if not rename.new:
            continue
        message = f"{counts[rename.old]} layers {rename.old} are {rename.new} in this model: {rename.says}."
        if rename.new.count("*") < rename.old.count("*") and not rename.old.endswith(".*"):
            way_out = MEND if rename.parts else "peft joins them as it loads them onto the model; loradar does not."
            message += " All experts are one parameter there."
            yield Finding("fused", "error", message, way_out, is_mended=bool(rename.parts))
            continue
        way_out = MEND if rename.is_certain else f"If that is right, {MEND}"
        yield Finding("names", "error", message, way_out, is_mended=True)


def _find_prefix(case: Case, patterns: Collection[str]) -> str:
    """Return the one name that all layers lack, or have more, at their start than in the model; empty without one."""
    starts = set()
    for pattern in patterns:
        new = case.renames[pattern].new if pattern in case.renames else ""
        longer, shorter = sorted((pattern, new), key=len, reverse=True)
        start = longer.removesuffix(f".{shorter}")
        is_one = shorter and "." not in start and not shorter.startswith(f"{start}.")
        starts.add(f"{'with' if longer == new else 'without'} {start!r}" if is_one else "")
    return starts.pop() if len(starts) == 1 else ""


def _find_unknown(case: Case) -> Iterator[Finding]:
    """Yield the layers that the model does not have."""
    lost: dict[str, list[Factors]] = defaultdict(list)
    for factors in case.adapter.factors.values():
        if not case.places_of(factors):
            lost[pattern_of(factors.path)].append(factors)
    for pattern, group in lost.items():
        rename = case.renames.get(pattern)
        known = case.base.places.get(pattern) if case.base else None
        message = f"The model has no layer for {len(group)} of {pattern}"
        way_out = "Give the model it was trained on: --model; or train it anew."
        if rename and not rename.new:
            message += f"; {rename.says}"
            way_out = "Rename the keys by hand: which of them it is does not follow from names and shapes."
        elif known is not None and known.kind not in ADAPTABLE:
            message += f": {known.kind} there takes no factors"
        elif known is not None:
            message += f", such as {group[0].path!r}: the adapter is for a deeper model"
        yield Finding("unknown-layers", "error", f"{message}.", way_out)


def _find_shapes(case: Case) -> Iterator[Finding]:
    """Yield the layers whose factors have other sides than the layer."""
    wrong: dict[str, list[tuple[Factors, Layer]]] = defaultdict(list)
    for factors, places in case.list_landed():
        layers = [place for place in places if isinstance(place, Layer)]
        if factors.sides and layers and not any(matches(layer, factors.sides) for layer in layers):
            wrong[pattern_of(layers[0].path)].append((factors, layers[0]))
    if not wrong:
        return
    lines = []
    for pattern, group in [*wrong.items()][:MOST]:
        factors, layer = group[0]
        own = f"{layer.in_features} -> {layer.out_features}" if layer.in_features else f"{layer.shape}"
        lines.append(f"{len(group)} of {pattern} are for {' -> '.join(map(str, factors.sides or ()))}, not {own}")
    more = f" and {len(wrong) - MOST} more" if len(wrong) > MOST else ""
    message = f"The factors do not fit the layers: {'; '.join(lines)}{more}: the adapter is for another base"
    stated = case.adapter.config.get("base_model_name_or_path")
    message += f" ({stated!r} by its configuration)." if stated else "."
    yield Finding("shapes", "error", message, "Give the model it was trained on: --model.")


def _find_targets(case: Case) -> Iterator[Finding]:
    """Yield the targets that select nothing in the model, and the layers they select without factors."""
    if case.config is None or case.base is None:
        return
    if case.base.scan is None:
        yield from _find_idle(case.config, [pattern.replace("*", "0") for pattern in case.base.places])
        return
    paths = case.base.scan.module_paths
    parameters = [path for path, layer in case.base.layers.items() if layer.kind == "expert_parameter"]
    try:
        matched = match(paths, case.config, parameters)
    except TargetsNotFound as error:
        has_layers = next(case.list_landed(), None) is not None
        yield Finding(
            "targets", "error", error.message, MEND if has_layers else "Name the layers.", is_mended=has_layers
        )
        return
    for remark in matched.remarks:
        yield Finding("targets", "warning", remark, MEND, is_mended=True)
    yield from _find_missing(case, matched)


def _find_idle(config: AdapterConfig, paths: Sequence[str]) -> Iterator[Finding]:
    """Yield the targets that select nothing, in a model whose blocks are not known one by one."""
    targets = config.spec.target_modules or ()
    for target in (targets,) if isinstance(targets, str) else targets:
        find = TargetMatcher(target if isinstance(targets, str) else (target,)).find
        if not any(find(path) for path in paths):
            yield Finding(
                "targets", "warning", f"No layer of the model is named {target!r}.", "Check the renames above."
            )


def _find_missing(case: Case, matched: Match) -> Iterator[Finding]:
    """Yield the layers that the configuration selects and the file has no factors for."""
    have = {case.path_of(factors) for factors, _ in case.list_landed()}
    for pattern, paths in _group_selected(case, matched).items() if have else ():
        missing = [path for path in paths if path not in have]
        if missing:
            message = f"The file has no factors for {len(missing)} of {len(paths)} layers {pattern} that the targets"
            message += f" select{_name_blocks(missing)}."
            way_out = "If they were not trained, --fix OUT selects the others alone; else save the adapter again."
            yield Finding("missing-layers", "error", message, way_out, is_mended=True)


def _group_selected(case: Case, matched: Match) -> dict[str, list[str]]:
    """Return the layers that the configuration selects, by path pattern."""
    layers = case.base.layers if case.base else {}
    groups: dict[str, list[str]] = defaultdict(list)
    for path in matched.paths:
        if path in layers and layers[path].kind in ADAPTABLE:
            groups[pattern_of(path)].append(path)
    return groups


def _find_saved(case: Case) -> Iterator[Finding]:
    """Yield the tensors beside the factors that the model has no module for."""
    if case.base is None or case.base.scan is None:
        return
    known = {*case.base.scan.module_paths, *case.base.layers}
    lost = [key for plain, key in case.adapter.saved.items() if not _has_owner(plain, known)]
    if lost:
        message = f"The model has no module for {len(lost)} tensors beside the factors, such as {lost[0]!r}."
        yield Finding("saved", "error", message, "Build the model with the head that was trained, or leave them out.")


def _has_owner(key: str, known: set[str]) -> bool:
    parts = key.split(".")
    return any(".".join(parts[:end]) in known for end in (len(parts) - 1, len(parts) - 2, len(parts)) if end > 0)


def _some(group: Iterable[Factors]) -> str:
    return _names([factors.path for factors in group])


def _names(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - MOST} more" if len(paths) > MOST else ""
    return ", ".join(paths[:MOST]) + more


def _count(group: Sequence[object], noun: str) -> str:
    return f"{len(group)} {noun}{'' if len(group) == 1 else 's'}"


def _name_blocks(paths: Iterable[str]) -> str:
    """Return the blocks of layers as a clause: ``: those of blocks 0-11, 14``."""
    runs: list[list[int]] = []
    for number in sorted({find_indices(path)[0] for path in paths if find_indices(path)}):
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return f": those of blocks {', '.join('-'.join(map(str, run)) for run in runs)}" if runs else ""
