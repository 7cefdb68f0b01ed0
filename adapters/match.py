"""Which paths a configuration means. Pure: strings in, one frozen ``Match`` out, no model in sight."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from ..targets import TargetMatcher, Targets
from .config import LoraConfig
from .suggest import no_target, not_saved, nothing_saved, target_missing


@dataclass(frozen=True, slots=True)
class Match:
    """What a configuration means on one list of module paths.

    Attributes:
        paths: Paths to adapt, in the order given.
        saved: Paths to train in full and save; none of them lies inside another.
        counts: How many paths each target hit.
        remarks: One line per target or saved name that hit nothing, with the closest that would.
    """

    paths: tuple[str, ...]
    saved: tuple[str, ...]
    counts: dict[str, int]
    remarks: tuple[str, ...] = field(default=())


def match(paths: Sequence[str], config: LoraConfig) -> Match:
    """Return what ``config`` means on these module paths, by PEFT's rules (``check_target_module_exists``, 0.21.2).

    Excluded paths and whatever lies in a saved module are never adapted; ``layers_to_transform`` narrows suffixes,
    but not a target that is a whole path.

    Raises:
        TargetsNotFound: If no path is left to adapt, or none to save, naming the closest that exist and how often.
    """
    spec = config.spec
    if spec.target_modules is None:
        raise no_target(paths, config)
    saved = _saved_paths(paths, spec.modules_to_save or ())
    named = _named_by(paths, spec.target_modules)
    kept = _kept(named, config)
    if not kept:
        raise no_target(paths, config, named)
    if spec.modules_to_save and not saved:
        raise nothing_saved(spec.modules_to_save, paths)
    counts = _counts(spec.target_modules, kept)
    remarks = [target_missing(target, paths, named) for target, count in counts.items() if not count]
    remarks += [not_saved(name, paths) for name in spec.modules_to_save or () if not _saved_paths(paths, (name,))]
    return Match(tuple(kept), saved, counts, tuple(remarks))


def _named_by(paths: Iterable[str], targets: Targets) -> dict[str, str]:
    """Return the target that names each path, for the paths that have one."""
    find = TargetMatcher(targets).find
    return {path: target for path in paths if (target := find(path)) is not None}


def _kept(named: dict[str, str], config: LoraConfig) -> dict[str, str]:
    """Return the named paths that nothing else in the configuration takes away."""
    saved = config.modules_to_save or ()
    is_excluded = TargetMatcher(config.spec.exclude_modules or ()).find
    return {
        path: target
        for path, target in named.items()
        if is_excluded(path) is None
        and not any(_lies_in(path, name) for name in saved)
        and (config.layers_to_transform is None or path == target or _block_is_wanted(path, config))
    }


def _lies_in(path: str, name: str) -> bool:
    """Tell whether ``path`` is, or is inside of, a module that ``name`` names."""
    return f".{name}." in f".{path}."


def _block_is_wanted(path: str, config: LoraConfig) -> bool:
    """Read the block index as PEFT does: the first number after a ``layers_pattern``, or after any second name."""
    patterns = config.layers_pattern or ()
    patterns = (patterns,) if isinstance(patterns, str) else patterns
    rules = [rf"(?:^|.*?\.){pattern}\.(\d+)\." for pattern in patterns] or [r".*?\.[^.]*\.(\d+)\."]
    found = next(filter(None, (re.match(rule, path) for rule in rules)), None)
    wanted = config.layers_to_transform
    wanted = (wanted,) if isinstance(wanted, int) else wanted or ()
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
