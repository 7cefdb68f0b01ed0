"""Match layers against target specs by PEFT's rule, and state the size of an adapter."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..errors import InvalidConfig
from ..schema import Config, schema_config
from .places import BlockPattern, find_places
from .vocabulary import RANK, list_some

if TYPE_CHECKING:
    from .layers import Layer

Targets = tuple[str, ...] | str
"""A tuple of path suffixes, or one regex that matches whole paths."""
NO_TARGETS = "dummy-target-modules"
"""PEFT's value of ``target_modules`` for an adapter of modules trained in full alone (``DUMMY_TARGET_MODULES``)."""


@dataclass(frozen=True)
class TargetMatcher:
    """PEFT's rule for target names (``peft.tuners.tuners_utils.check_target_module_exists``, 0.21.2).

    A string is a regex that must match the whole path. Any other name matches a path that is equal to it or ends
    with a dot and the name.
    """

    targets: Targets

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        try:
            return re.compile(str(self.targets))
        except re.error as error:
            message = (
                f"Target regex {self.targets!r} does not compile: {error}. Give a valid regex or a list of suffixes."
            )
            raise InvalidConfig(message, targets=self.targets) from None

    @cached_property
    def _suffixes_by_length(self) -> dict[int, frozenset[str]]:
        by_length: dict[int, set[str]] = {}
        for name in self.targets:
            by_length.setdefault(name.count(".") + 1, set()).add(name)
        return {length: frozenset(names) for length, names in by_length.items()}

    def find(self, path: str) -> str | None:
        """Return the target that matches ``path``, or ``None``."""
        if isinstance(self.targets, str):
            return self.targets if self._regex.fullmatch(path) else None
        for length, names in self._suffixes_by_length.items():
            if length == 1:
                suffix = path[path.rfind(".") + 1 :]
            else:
                suffix = path if path.count(".") < length else ".".join(path.rsplit(".", length)[1:])
            if suffix in names:
                return suffix
        return None


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """The layers one PEFT method adapts, in PEFT's own fields."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    target_modules: Targets | None = None
    """Layers to adapt."""
    exclude_modules: Targets | None = None
    """Layers that ``target_modules`` matches and that are left alone."""
    modules_to_save: tuple[str, ...] | None = None
    """Modules trained in full and saved with the adapter, such as a fresh head."""
    target_parameters: tuple[str, ...] | None = None
    """Bare parameters to adapt, such as fused experts."""
    feedforward_modules: Targets | None = None
    """Subset of ``target_modules`` that IA3 scales at the input."""
    exclude_blocks: tuple[str, ...] | None = None
    """Layers left alone by their place in the stack, at any depth (``BlockPattern``), which PEFT has no field for."""

    def list_targets(self) -> list[str]:
        """Return the target modules and parameters by name; a regex is one target."""
        modules = () if self.saves_alone else self.target_modules or ()
        return [*([modules] if isinstance(modules, str) else modules), *(self.target_parameters or ())]

    @property
    def saves_alone(self) -> bool:
        """Whether it adapts no layer, and trains modules in full alone."""
        return self.target_modules == NO_TARGETS and not self.target_parameters

    def describe_saved(self) -> str:
        """Return the reason of a spec that adapts no layer."""
        names = list_some(self.modules_to_save or ())
        return f"no adapter: no layer but the head takes one, so that {names} is trained in full"

    @property
    def values(self) -> dict[str, Any]:
        """The fields by name, as a record has them: blocks left alone are also named in ``exclude_modules``."""
        named = resolve_blocks(self)
        return {**dict(zip(SPEC_FIELDS, _read_spec(named), strict=True)), "exclude_blocks": self.exclude_blocks}

    @property
    def stored(self) -> dict[str, Any]:
        """The fields by name, as they are stored; ``exclude_blocks`` if set, as ids are digests of stored specs."""
        values = zip(SPEC_FIELDS, _read_spec(self), strict=True)
        return {name: value for name, value in values if value is not None or name != "exclude_blocks"}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build a spec from JSON that holds its fields; missing ones are ``None``, others are ignored."""
        values = ((name, data.get(name)) for name in SPEC_FIELDS)
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values})


SPEC_FIELDS = tuple(field.name for field in fields(TargetSpec))
_read_spec: Callable[[Any], tuple[Any, ...]] = attrgetter(*SPEC_FIELDS)


class HasSpec:
    """A record with the fields of a target spec among its own."""

    __slots__ = ()

    @property
    def spec(self) -> TargetSpec:
        """The target spec; blocks in ``exclude_blocks`` are not repeated in its ``exclude_modules``."""
        spec = TargetSpec(*_read_spec(self))
        excluded = spec.exclude_modules
        if not spec.exclude_blocks or excluded is None:
            return spec
        added = _list_scanned(spec)  # by ``resolve_blocks``, if it did
        if isinstance(excluded, str):
            before = excluded.removesuffix(f"|{as_regex(added)}")
            return spec if before == excluded else replace(spec, exclude_modules=before[len("(?:") : -1])
        return replace(spec, exclude_modules=tuple(path for path in excluded if path not in added) or None)


@dataclass(frozen=True, slots=True)
class Formula:
    """The number of parameters an adapter of rank r trains: ``per_rank`` x r + ``fixed``."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    per_rank: int
    """Parameters each rank adds; 0 for a method without ranks."""
    fixed: int
    """Parameters trained at any rank, saved modules included."""

    def count(self, rank: int = RANK) -> int:
        """Return the number of parameters trained at a rank."""
        return rank * self.per_rank + self.fixed


class HasFormula:
    """A record with the size of its adapter, ``formula``."""

    __slots__ = ()
    formula: Formula | None

    @property
    def per_rank(self) -> int | None:
        """Parameters each rank adds; ``None`` without a formula."""
        return self.formula.per_rank if self.formula else None

    @property
    def fixed(self) -> int | None:
        """Parameters trained at any rank; ``None`` without a formula."""
        return self.formula.fixed if self.formula else None


def find_hits(spec: TargetSpec, layers: "Iterable[Layer]") -> tuple["Layer", ...]:
    """Return the layers a spec matches, by PEFT's rule: an excluded layer never matches."""
    known = tuple(layers)
    spec = resolve_blocks(spec, (layer.path for layer in known))
    modules, excluded = TargetMatcher(spec.target_modules or ()), TargetMatcher(spec.exclude_modules or ())
    parameters = TargetMatcher(spec.target_parameters or ())
    return tuple(
        layer
        for layer in known
        if (
            parameters.find(layer.path)
            if layer.kind == "expert_parameter"
            else excluded.find(layer.path) is None and modules.find(layer.path)
        )
    )


def resolve_blocks(spec: TargetSpec, paths: Iterable[str] | None = None) -> TargetSpec:
    """Return a spec that names the blocks it leaves alone in ``exclude_modules``, as PEFT reads it.

    Args:
        spec: The spec.
        paths: The layers of the model it is for, of any depth; by default the blocks are those of the scanned model.
    """
    if spec.exclude_blocks is None:
        return spec
    if paths is None:
        excluded = _list_scanned(spec)
    else:
        places = find_places([*paths])
        excluded = tuple(path for text in spec.exclude_blocks for path in BlockPattern.parse(text).list_in(places))
    spec = replace(spec, exclude_blocks=None)
    return excluding(spec, excluded) if excluded else spec


def _list_scanned(spec: TargetSpec) -> tuple[str, ...]:
    """Return the layers that ``exclude_blocks`` leaves alone in the scanned model."""
    return tuple(path for text in spec.exclude_blocks or () for path in BlockPattern.parse(text).list_scanned())


def excluding(spec: TargetSpec, targets: Targets) -> TargetSpec:
    """Return a spec that excludes these modules too."""
    before = spec.exclude_modules
    if before is None:
        return replace(spec, exclude_modules=targets)
    if isinstance(before, tuple) and isinstance(targets, tuple):
        return replace(spec, exclude_modules=(*before, *targets))
    return replace(spec, exclude_modules=f"{as_regex(before)}|{as_regex(targets)}")


def without_exclusion(spec: TargetSpec) -> TargetSpec:
    """Return a spec without exclusions that matches the same layers, blocks left alone at the scanned depth only."""
    spec = resolve_blocks(spec)
    if spec.exclude_modules is None or spec.target_modules is None:
        return spec
    targets = f"(?!{as_regex(spec.exclude_modules)}$){as_regex(spec.target_modules)}"
    return replace(spec, target_modules=targets, exclude_modules=None)


def as_regex(targets: Targets) -> str:
    """Return the regex that matches the same paths as these targets."""
    if isinstance(targets, str):
        return f"(?:{targets})"
    return rf"(?:.*\.)?(?:{'|'.join(map(re.escape, targets))})"
