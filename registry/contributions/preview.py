"""Preview a statement: the layers that its names match, before anything is scanned or stored."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ...domain.choosing.stored_layers import StoredLayers
from ...domain.layers import Layer, Slot
from ...domain.mappings import Mapping
from ...domain.patterns import pattern_of
from ...domain.scans import Variant
from ...domain.submissions import Difference, PreviewedTarget, Statement, StatementPreview
from ...domain.targets import Targets, TargetSpec, find_hits
from ...domain.vocabulary import Kind
from ..verification.matching import Match, match_spec
from .evidence import count_patterns, list_adapted
from .near_names import Names
from .safe_regex import LinearMatcher

MOST_PREVIEWED = 32
"""Names of a field that are looked at one by one; all of them count in the whole."""

_KINDS: dict[int, Kind] = {2: "linear", 3: "expert_parameter"}
"""Kind of a listed weight by its number of dimensions; a scan looks closer."""


def preview(statement: Statement, slots: Sequence[Slot], served: Mapping | None) -> StatementPreview:
    """Return the effect of a statement on the layers that are known without a scan.

    Args:
        statement: The statement; a regex in it is matched by RE2 alone.
        slots: The slots on record of its architecture.
        served: The mapping that lookups return now.

    Raises:
        InvalidStatement: If RE2 rejects a regex.
        MissingExtra: If there is a regex, and google-re2 is not installed.
    """
    stored = StoredLayers(slots)
    if slots and stored.is_known:
        return _Preview(statement, Variant("registry", tuple(stored.sizes), stored.modules)).make("registry", served)
    if statement.layers:
        listed = tuple(
            Layer(x.path, _KINDS.get(len(x.shape), "other"), x.class_name or "", x.shape) for x in statement.layers
        )
        paths = (*dict.fromkeys(layer.module_path for layer in listed),)
        return _Preview(statement, Variant("listing", listed, paths)).make("listing", served)
    return StatementPreview(statement.reference, None)


@dataclass(frozen=True)
class _Preview:
    statement: Statement
    known: Variant

    def make(self, known_by: str, served: Mapping | None) -> StatementPreview:
        layers = list_adapted(self._match(self.statement.spec), self.statement.peft_type)
        return StatementPreview(
            self.statement.reference,
            "registry" if known_by == "registry" else "listing",
            tuple(self._list_targets()),
            count_patterns(layers),
            len(layers),
            self._differ(layers, served) if served else None,
        )

    def _match(self, spec: TargetSpec) -> tuple[Match, ...]:
        return match_spec(self.known, spec, self.statement.peft_type, LinearMatcher)

    def _list_targets(self) -> Iterator[PreviewedTarget]:
        """Yield each name of each field, or its regex, with its effect."""
        stated = self.statement.spec
        for one in _apart(stated.target_modules):
            yield self._describe("target_modules", one, self._match(TargetSpec(one, stated.exclude_modules)))
        for one in _apart(stated.target_parameters):
            yield self._describe("target_parameters", one, self._match(TargetSpec(target_parameters=tuple(one))))
        among = self._match(replace(stated, exclude_modules=None))
        for field in ("exclude_modules", "feedforward_modules"):
            for one in _apart(getattr(stated, field)):
                matcher = LinearMatcher(one)
                yield self._describe(field, one, [match for match in among if matcher.find(match.path)])
        for name in (stated.modules_to_save or ())[:MOST_PREVIEWED]:
            ends = [path for path in self.known.module_paths if path.endswith(name)]
            near = () if ends else self._names.near(name)
            patterns = dict(Counter(map(pattern_of, ends)).most_common(MOST_PREVIEWED))
            yield PreviewedTarget("modules_to_save", name, len(ends), patterns, near=near)

    @cached_property
    def _names(self) -> Names:
        return Names(self.known)

    def _describe(self, field: str, one: Targets, matches: Sequence[Match]) -> PreviewedTarget:
        layers = list_adapted(matches, self.statement.peft_type)
        is_regex, target = isinstance(one, str), one if isinstance(one, str) else one[0]
        find_near = self._names.near_regex if is_regex else self._names.near
        unfit = {match.kind: None for match in matches if not match.is_fit(self.statement.peft_type)}
        near = () if matches else find_near(target)
        return PreviewedTarget(
            field,
            target,
            len(layers),
            count_patterns(layers),
            tuple(dict.fromkeys(layer.role for layer in layers)),
            tuple(dict.fromkeys(layer.tower for layer in layers)),
            tuple(unfit),
            near,
        )

    def _differ(self, ours: Sequence[Layer], served: Mapping) -> Difference:
        theirs = find_hits(served.spec, self.known.layers)
        our_paths, their_paths = ({layer.path for layer in layers} for layers in (ours, theirs))
        more = [layer for layer in ours if layer.path not in their_paths]
        less = [layer for layer in theirs if layer.path not in our_paths]
        source = f"{served.source.kind} {served.source.version}, revision {served.revision}"
        return Difference(source, served.id, count_patterns(more), count_patterns(less))


def _apart(targets: Targets | None) -> Iterator[Targets]:
    """Yield each of the first names by itself, or the regex."""
    if isinstance(targets, str):
        yield targets
        return
    yield from ((name,) for name in (targets or ())[:MOST_PREVIEWED])
