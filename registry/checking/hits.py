"""The layers that each target of a configuration matches, as its project and PEFT read it."""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from ...domain.layers import Layer
from ...domain.patterns import OPEN, name_leaves
from ...domain.targets import TargetMatcher, Targets
from ...references.words import MOE, words_of
from ...training_configs import LoraPart, Named
from .subject import LINEAR, Subject

DEEPEST = 256
"""Blocks that a checkpoint may have: more than the default configuration, whose layers are registered."""
_CLASSES = re.compile(r"\[[^\]]*\]|\{[\d,]*\}")
_INDEX = re.compile(r"(?<![A-Za-z_\d])\d")


@dataclass(frozen=True)
class Hits:
    """A configuration beside its model.

    Attributes:
        part: What is configured.
        subject: The model.
        matcher: Class that matches targets; a regex from elsewhere needs RE2.
    """

    part: LoraPart
    subject: Subject
    matcher: type[TargetMatcher] = TargetMatcher

    @cached_property
    def frozen(self) -> frozenset[str]:
        """Towers that get no adapter; of a model of one tower, such as Whisper, the projects freeze none."""
        return self.part.frozen if len({layer.tower for layer in self.subject.layers}) > 1 else frozenset()

    @cached_property
    def by_target(self) -> dict[Named, tuple[Layer, ...]]:
        """The layers that each target matches, towers that are left alone apart."""
        return {
            target: tuple(layer for layer in layers if layer.tower not in self.frozen)
            for target, layers in self.anywhere.items()
        }

    @cached_property
    def anywhere(self) -> dict[Named, tuple[Layer, ...]]:
        """The layers that each target matches, whatever is left alone."""
        part = self.part
        found: dict[Named, tuple[Layer, ...]] = {}
        for name in part.names:
            found[name] = tuple(self._match((name.text,)))
        if part.regex:
            found[part.regex] = tuple(self._match(part.regex.text))
        for name in part.parameters:
            known = self.matcher((name.text,))
            found[name] = tuple(x for x in self.subject.layers if x.kind == "expert_parameter" and known.find(x.path))
        for role, name in part.roles:
            found[name] = (*found.get(name, ()), *(x for x in self.subject.layers if x.role == role))
        if part.every:
            found[part.every] = tuple(self._match_every())
        if part.is_default and "default" in self.subject.mappings:
            spec = self.subject.mappings["default"].spec
            found[Named("the default of PEFT", part.line)] = tuple(self._match(spec.target_modules or ()))
        return found

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """Every layer that gets an adapter, by path."""
        return {layer.path: layer for layers in self.by_target.values() for layer in layers}

    @cached_property
    def _excluded(self) -> TargetMatcher:
        texts = tuple(name.text for name in self.part.excluded)
        return self.matcher(texts[0] if self.part.excludes_by_regex and texts else texts)

    def _match(self, targets: Targets) -> Iterator[Layer]:
        matcher, experts = self.matcher(targets), self._convert(targets)
        for layer in self.subject.layers:
            if layer.kind == "expert_parameter":
                if layer.path.endswith(tuple(experts)):
                    yield layer
            elif matcher.find(layer.path) and not self._excluded.find(layer.path):
                yield layer

    def _convert(self, targets: Targets) -> list[str]:
        """Return the ends of the parameters of experts that PEFT adapts for targets with their earlier names."""
        converted = self.part.project.expert_names or self.subject.converted
        if isinstance(targets, str):
            experts = (x.path.rpartition(".")[0] for x in self.subject.layers if x.kind == "expert_parameter")
            paths = {f"{parent}.{old}" for parent in {*experts} for old in converted}
            named = {*filter(self.matcher(targets).find, paths)}
        else:
            named = {f".{name}" for name in targets}
        ends = {end.rpartition(".")[2] for end in named}
        return [f".{converted[old]}" for old in converted if old in ends]

    def _match_every(self) -> Iterator[Layer]:
        """Yield the linear layers; those that are put into practice by name have the layers of these names too."""
        part, converted = self.part, self.subject.converted
        linear = [x for x in self.subject.layers if x.kind in LINEAR and x.role != "head"]
        inside = [x for x in linear if x.tower not in self.frozen]
        if part.project.every_by == "names":
            yield from self._match(tuple({x.path.rpartition(".")[2] for x in inside}))
            return
        yield from (x for x in linear if not self._excluded.find(x.path))
        yield from self._match(tuple(converted)) if converted else ()

    def reaches_deeper(self, target: Named) -> bool:
        """Return whether a target matches a layer of a deeper model: its indices are beyond the registered ones."""
        matcher = self.matcher(target.text if target == self.part.regex else (target.text,))
        return any(
            matcher.find(slot.pattern.replace(OPEN, str(index), 1).replace(OPEN, "0"))
            for slot in self.subject.detail.slots
            if OPEN in slot.pattern
            for index in range(DEEPEST)
        )

    def find_as_name(self, target: Named) -> list[Layer]:
        """Return the layers that a target would match as a name, without quotes and commas around it."""
        matcher = TargetMatcher((target.text.strip(" ,'\""),))
        found = [layer for layer in self.subject.layers if matcher.find(layer.path)]
        return [layer for layer in found if layer.tower in self.subject.home] or found

    def may_be_absent(self, target: Named) -> bool:
        """Return whether a target is for experts that the default configuration has not, and the checkpoint has."""
        base, roles = self.part.base, {layer.role.partition(".")[0] for layer in self.subject.layers}
        return "expert" in target.text and "expert" not in roles and base is not None and MOE in words_of(base.text)

    @property
    def names_blocks(self) -> bool:
        """Whether the targets name blocks by their index."""
        texts = [target.text for target in (*self.part.names, *filter(None, [self.part.regex]))]
        return any(_INDEX.search(_CLASSES.sub("", text)) for text in texts)


def find_leaves(layers: Iterable[Layer]) -> tuple[str, ...]:
    """Return the last names of the paths of layers, each once; an index has the name before it."""
    return name_leaves(layer.path for layer in layers)


def without(layers: Iterable[Layer], others: Collection[str]) -> list[Layer]:
    """Return the layers whose paths are none of the others."""
    return [layer for layer in layers if layer.path not in others]
