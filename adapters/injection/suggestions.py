"""The words for targets that name nothing: what is there instead, and how often."""

from collections import Counter
from collections.abc import Iterable, Sequence

from ...domain.targets import Targets
from ...errors import TargetsNotFound, nearest
from ..config import AdapterConfig

MOST = 3


def no_target(paths: Sequence[str], config: AdapterConfig, named: Iterable[str] = ()) -> TargetsNotFound:
    """Return the error for a configuration that adapts nothing.

    Args:
        paths: Every module path of the model.
        config: The configuration.
        named: Paths that its targets name, but that were then excluded.
    """
    targets = config.spec.target_modules
    if targets is None:
        message = f"target_modules is not set. {_what_there_is(paths)}"
    elif excluded := [*named]:
        message = _all_excluded(excluded, config)
    else:
        message = _misses(targets, paths)
    return TargetsNotFound(message, target_modules=targets)


def no_parameter(targets: Sequence[str], parameters: Sequence[str]) -> TargetsNotFound:
    """Return the error for ``target_parameters`` of which nothing exists."""
    said = " ".join(f"No parameter ends with {target!r}. {_closest(target, parameters)}" for target in targets)
    return TargetsNotFound(said, target_parameters=[*targets])


def target_missing(target: str, paths: Sequence[str], named: Iterable[str]) -> str:
    """Return the remark on one target that hits nothing while others do."""
    if any(path == target or path.endswith(f".{target}") for path in named):
        return f"Every layer that {target!r} names is excluded or saved in full: none is adapted."
    return f"No layer ends with {target!r}: it is ignored. {_closest(target, paths)}"


def not_saved(name: str, paths: Sequence[str]) -> str:
    """Return the remark on one entry of ``modules_to_save`` that names nothing."""
    return f"No module ends with {name!r}, so modules_to_save has nothing to save for it. {_closest(name, paths)}"


def nothing_saved(names: Iterable[str], paths: Sequence[str]) -> TargetsNotFound:
    """Return the error for a ``modules_to_save`` of which nothing exists."""
    return TargetsNotFound(" ".join(not_saved(name, paths) for name in names), modules_to_save=names)


def _misses(targets: Targets, paths: Sequence[str]) -> str:
    if isinstance(targets, str):
        return _regex_misses(targets, paths)
    return " ".join(f"No layer ends with {target!r}. {_closest(target, paths)}" for target in targets)


def _regex_misses(regex: str, paths: Sequence[str]) -> str:
    """A bare name given as a string is the usual cause: PEFT reads it as a regex for the whole path."""
    count = _names(paths, regex.count(".") + 1)[regex]
    way_out = f"For a suffix, give a list: [{regex!r}]{_times(count)}." if count else _what_there_is(paths)
    return f"No whole path matches the regex {regex!r}. {way_out}"


def _all_excluded(excluded: Sequence[str], config: AdapterConfig) -> str:
    causes = ("exclude_modules", "modules_to_save", "layers_to_transform")
    said = ", ".join(f"{name}={value!r}" for name in causes if (value := getattr(config, name, None)) is not None)
    return f"All {len(excluded)} layers that target_modules names, such as {excluded[0]!r}, are left out by {said}."


def _closest(name: str, paths: Sequence[str]) -> str:
    """Return the names most like ``name``, cut to as many segments, with their counts."""
    counts = _names(paths, name.count(".") + 1)
    near = nearest(name, counts, MOST)
    if not near:
        return _what_there_is(paths)
    return f"Closest: {', '.join(repr(each) + _times(counts[each]) for each in near)}."


def _what_there_is(paths: Sequence[str]) -> str:
    """Return the most frequent names of modules without children."""
    outer = {path.rpartition(".")[0] for path in paths}
    counts = Counter(path.rpartition(".")[2] for path in paths if path not in outer)
    if not counts:
        return "This model has no layers."
    return f"This model has: {', '.join(repr(name) + _times(count) for name, count in counts.most_common(8))}."


def _names(paths: Iterable[str], segments: int) -> Counter[str]:
    return Counter(".".join(path.split(".")[-segments:]) for path in paths)


def _times(count: int) -> str:
    return f" ({count} layer{'s' if count > 1 else ''})"
