"""Match a configuration with module paths: strings in, one frozen ``Match`` out, no model involved."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...domain.targets import NO_TARGETS, TargetMatcher, Targets
from ...errors import TargetsNotFound
from ...similar_names import nearest
from ...warn import warn
from ..config import AdapterConfig, LoraConfig

MOST_NAMES = 3
"""Number of similar names that an error suggests."""


@dataclass(frozen=True, slots=True)
class Match:
    """The paths that a configuration matches in one list of module paths.

    Attributes:
        paths: Paths to adapt, in the order given.
        saved: Paths to train in full and save; none of them lies inside another.
        counts: Number of paths that each target matches.
        remarks: One line per target or saved name without a match, with the closest names.
        parameters: Bare parameters to adapt, each as the path of its module and its name, in the order given.
    """

    paths: tuple[str, ...]
    saved: tuple[str, ...]
    counts: dict[str, int]
    remarks: tuple[str, ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()


def match(paths: Sequence[str], config: AdapterConfig, parameters: Sequence[str] = ()) -> Match:
    """Match ``config`` with these paths by PEFT's rules (``check_target_module_exists``, 0.21.2).

    Excluded paths and the inside of saved modules are never adapted; ``layers_to_transform`` narrows suffixes,
    but not a target that is a whole path. Neither applies to ``target_parameters``.

    Args:
        paths: Paths of the modules.
        config: The configuration.
        parameters: Paths of the parameters, needed for ``target_parameters``.

    Raises:
        TargetsNotFound: If nothing is left to adapt, or none to save, naming the closest names and their counts.
    """
    spec = config.spec
    if spec.saves_alone:
        return _match_saved_alone(paths, spec.modules_to_save or ())
    targets, bare_targets = spec.target_modules or (), spec.target_parameters or ()
    named, bare = matched(paths, targets), matched(parameters, bare_targets)
    kept = _kept(named, config)
    if not kept and not bare:
        raise _no_match(paths, parameters, named, config)
    saved, saved_remarks = _match_saved(paths, spec.modules_to_save or ())
    counts = {**_counts(targets, kept), **_counts(bare_targets, bare)}
    listed = (targets,) if isinstance(targets, str) else targets
    remarks = [_unmatched(target, paths, named) for target in listed if not counts[target]]
    remarks += [_unmatched(target, parameters, bare) for target in bare_targets if not counts[target]]
    owned = ((path, name) for path, _, name in (key.rpartition(".") for key in bare))
    return Match(tuple(kept), saved, counts, (*remarks, *saved_remarks), tuple(owned))


def _match_saved_alone(paths: Sequence[str], names: tuple[str, ...]) -> Match:
    """Return the match of a configuration that adapts nothing and trains modules in full."""
    if not names:
        message = f"target_modules={NO_TARGETS!r} adapts nothing: name what is trained in full in modules_to_save."
        raise TargetsNotFound(message, target_modules=NO_TARGETS)
    saved, remarks = _match_saved(paths, names)
    return Match((), saved, {}, (*remarks,))


def warn_of_exclusions(paths: Sequence[str], config: AdapterConfig) -> None:
    """Warn of the exclusions in a user's configuration that match no path: a misspelt one would leave nothing out."""
    excluded = config.spec.exclude_modules or ()
    for each in [excluded] if isinstance(excluded, str) else [(name,) for name in excluded]:
        if each and not matched(paths, each):
            name = each if isinstance(each, str) else each[0]
            message = f"exclude_modules: no layer is named {name!r}, so nothing is left out for it."
            warn(f"{message} {closest(name, paths)}")


def matched(paths: Iterable[str], targets: Targets) -> dict[str, str]:
    """Return the matched paths, each with its target."""
    if not targets:
        return {}
    find = TargetMatcher(targets).find
    return {path: target for path in paths if (target := find(path)) is not None}


def _kept(named: dict[str, str], config: AdapterConfig) -> dict[str, str]:
    """Return the matched paths that are not excluded, in a saved module or in a block left out."""
    saved = config.modules_to_save or ()
    excluded = matched(named, config.spec.exclude_modules or ())
    return {
        path: target
        for path, target in named.items()
        if path not in excluded
        and not any(f".{name}." in f".{path}." for name in saved)
        and (path == target or not isinstance(config, LoraConfig) or _is_in_blocks(path, config))
    }


def _is_in_blocks(path: str, config: LoraConfig) -> bool:
    """Return whether a path is in ``layers_to_transform``.

    As in PEFT, the block index is the first number after a ``layers_pattern``, or after any second name.
    """
    wanted = config.layers_to_transform
    if wanted is None:
        return True
    patterns = config.layers_pattern or ()
    patterns = (patterns,) if isinstance(patterns, str) else patterns
    rules = [rf"(?:^|.*?\.){pattern}\.(\d+)\." for pattern in patterns] or [r".*?\.[^.]*\.(\d+)\."]
    index = next(filter(None, (re.match(rule, path) for rule in rules)), None)
    wanted = (wanted,) if isinstance(wanted, int) else wanted
    return index is not None and int(index[1]) in wanted


def _counts(targets: Targets, kept: dict[str, str]) -> dict[str, int]:
    """Count the paths per target; a target that repeats others counts the paths it would match alone."""
    if isinstance(targets, str):
        return {targets: len(kept)}
    counts = Counter(kept.values())
    return {target: counts[target] or len(matched(kept, (target,))) for target in targets}


def _match_saved(paths: Sequence[str], names: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """Return the paths that saved names match, none inside of another one, and a remark per name without a match."""
    saved: list[str] = []
    for path in matched(paths, names):
        if not any(path.startswith(outer + ".") for outer in saved):
            saved.append(path)
    remarks = [
        f"No module ends with {name!r}, so modules_to_save has nothing to save for it. {closest(name, paths)}"
        for name in names
        if not matched(paths, (name,))
    ]
    if names and not saved:
        raise TargetsNotFound(" ".join(remarks), modules_to_save=names)
    return tuple(saved), remarks


# Errors and remarks


def _no_match(
    paths: Sequence[str], parameters: Sequence[str], named: dict[str, str], config: AdapterConfig
) -> TargetsNotFound:
    """Return the error for a configuration that adapts nothing, though it may match the paths ``named``."""
    targets, bare_targets = config.spec.target_modules, config.spec.target_parameters
    if not targets and bare_targets:
        message = " ".join(f"No parameter ends with {each!r}. {closest(each, parameters)}" for each in bare_targets)
        return TargetsNotFound(message, target_parameters=[*bare_targets])
    if targets is None:
        message = f"target_modules is not set. {_frequent(paths)}"
    elif named:
        causes = ("exclude_modules", "modules_to_save", "layers_to_transform")
        given = ", ".join(f"{name}={value!r}" for name in causes if (value := getattr(config, name, None)) is not None)
        example = next(iter(named))
        message = f"All {len(named)} layers that target_modules names, such as {example!r}, are left out by {given}."
    elif isinstance(targets, str):
        # A bare name given as a string is the usual cause: PEFT reads it as a regex for the whole path.
        count = _endings(paths, targets.count(".") + 1)[targets]
        way_out = f"For a suffix, give a list: [{targets!r}]{_times(count)}." if count else _frequent(paths)
        message = f"No whole path matches the regex {targets!r}. {way_out}"
    else:
        message = " ".join(f"No layer ends with {target!r}. {closest(target, paths)}" for target in targets)
    return TargetsNotFound(message, target_modules=targets)


def _unmatched(target: str, paths: Sequence[str], named: Iterable[str]) -> str:
    """Return the remark on a target without a layer, where other targets have some."""
    if any(path == target or path.endswith(f".{target}") for path in named):
        return f"Every layer that {target!r} names is excluded or saved in full: none is adapted."
    return f"No layer ends with {target!r}: it is ignored. {closest(target, paths)}"


def closest(name: str, paths: Sequence[str]) -> str:
    """List the path endings most similar to ``name``, of as many segments, with their counts."""
    counts = _endings(paths, name.count(".") + 1)
    near = nearest(name, counts, MOST_NAMES)
    if not near:
        return _frequent(paths)
    return f"Closest: {', '.join(repr(each) + _times(counts[each]) for each in near)}."


def _frequent(paths: Sequence[str]) -> str:
    """List the most frequent names of modules without children."""
    outer = {path.rpartition(".")[0] for path in paths}
    counts = Counter(path.rpartition(".")[2] for path in paths if path not in outer)
    if not counts:
        return "This model has no layers."
    return f"This model has: {', '.join(repr(name) + _times(count) for name, count in counts.most_common(8))}."


def _endings(paths: Iterable[str], segments: int) -> Counter[str]:
    return Counter(".".join(path.split(".")[-segments:]) for path in paths)


def _times(count: int) -> str:
    return f" ({count} layer{'s' if count > 1 else ''})"
