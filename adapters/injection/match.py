"""Which paths a configuration means. Pure: strings in, one frozen ``Match`` out, no model in sight."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ...domain.targets import TargetMatcher, Targets
from ..config import AdapterConfig, LoraConfig
from .suggestions import no_parameter, no_target, not_saved, nothing_saved, target_missing


@dataclass(frozen=True, slots=True)
class Match:
    """What a configuration means on one list of module paths.

    Attributes:
        paths: Paths to adapt, in the order given.
        saved: Paths to train in full and save; none of them lies inside another.
        counts: How many paths each target hit.
        remarks: One line per target or saved name that hit nothing, with the closest that would.
        parameters: Bare parameters to adapt, each as the path of its module and its name, in the order given.
    """

    paths: tuple[str, ...]
    saved: tuple[str, ...]
    counts: dict[str, int]
    remarks: tuple[str, ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()


def match(paths: Sequence[str], config: AdapterConfig, parameters: Sequence[str] = ()) -> Match:
    """Return what ``config`` means on these paths, by PEFT's rules (``check_target_module_exists``, 0.21.2).

    Excluded paths and whatever lies in a saved module are never adapted; ``layers_to_transform`` narrows suffixes,
    but not a target that is a whole path. Neither counts for ``target_parameters``.

    Args:
        paths: Paths of the modules.
        config: What is wanted.
        parameters: Paths of the parameters, needed for ``target_parameters``.

    Raises:
        TargetsNotFound: If nothing is left to adapt, or none to save, naming the closest that exist and how often.
    """
    spec = config.spec
    targets, bare_targets = spec.target_modules or (), spec.target_parameters or ()
    if not targets and not bare_targets:
        raise no_target(paths, config)
    saved = _saved_paths(paths, spec.modules_to_save or ())
    named, bare = _named_by(paths, targets), _named_by(parameters, bare_targets)
    kept = _kept(named, config)
    if not kept and not bare:
        raise no_target(paths, config, named) if targets else no_parameter(bare_targets, parameters)
    if spec.modules_to_save and not saved:
        raise nothing_saved(spec.modules_to_save, paths)
    counts = {**_counts(targets, kept), **_counts(bare_targets, bare)}
    remarks = [target_missing(each, paths, named) for each in _said(targets) if not counts[each]]
    remarks += [target_missing(each, parameters, bare) for each in bare_targets if not counts[each]]
    remarks += [not_saved(name, paths) for name in spec.modules_to_save or () if not _saved_paths(paths, (name,))]
    owned = ((path, name) for path, _, name in (key.rpartition(".") for key in bare))
    return Match(tuple(kept), saved, counts, tuple(remarks), tuple(owned))


def _said(targets: Targets) -> tuple[str, ...]:
    return (targets,) if isinstance(targets, str) else targets


def _named_by(paths: Iterable[str], targets: Targets) -> dict[str, str]:
    """Return the target that names each path, for the paths that have one."""
    if not targets:
        return {}
    find = TargetMatcher(targets).find
    return {path: target for path in paths if (target := find(path)) is not None}


def _kept(named: dict[str, str], config: AdapterConfig) -> dict[str, str]:
    """Return the named paths that nothing else in the configuration takes away."""
    saved = config.modules_to_save or ()
    excluded = _named_by(named, config.spec.exclude_modules or ())
    return {
        path: target
        for path, target in named.items()
        if path not in excluded
        and not any(_lies_in(path, name) for name in saved)
        and (path == target or not isinstance(config, LoraConfig) or _block_is_wanted(path, config))
    }


def _lies_in(path: str, name: str) -> bool:
    """Tell whether ``path`` is, or is inside of, a module that ``name`` names."""
    return f".{name}." in f".{path}."


def _block_is_wanted(path: str, config: LoraConfig) -> bool:
    """Read the block index as PEFT does: the first number after a ``layers_pattern``, or after any second name."""
    wanted = config.layers_to_transform
    if wanted is None:
        return True
    patterns = config.layers_pattern or ()
    patterns = (patterns,) if isinstance(patterns, str) else patterns
    rules = [rf"(?:^|.*?\.){pattern}\.(\d+)\." for pattern in patterns] or [r".*?\.[^.]*\.(\d+)\."]
    found = next(filter(None, (re.match(rule, path) for rule in rules)), None)
    wanted = (wanted,) if isinstance(wanted, int) else wanted
    return found is not None and int(found[1]) in wanted


def _counts(targets: Targets, kept: dict[str, str]) -> dict[str, int]:
    """Count the paths per target; a target that only repeats another counts what it would hit alone."""
    if isinstance(targets, str):
        return {targets: len(kept)}
    found = Counter(kept.values())
    return {target: found[target] or len(_named_by(kept, (target,))) for target in targets}


def _saved_paths(paths: Iterable[str], names: Collection[str]) -> tuple[str, ...]:
    """Return the paths that a saved name means, without those inside another one."""
    found: list[str] = []
    for path in _named_by(paths, tuple(names)):
        if not any(path.startswith(outer + ".") for outer in found):
            found.append(path)
    return tuple(found)
