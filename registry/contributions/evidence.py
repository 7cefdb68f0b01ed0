"""Gather the evidence on a statement: the layers it matches, its verification, and its differences from others."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from ...domain.layers import Blocks, Layer
from ...domain.mappings import Mapping, Verification
from ...domain.methods import get_method
from ...domain.patterns import pattern_of
from ...domain.scans import Proposal, Scan
from ...domain.selection import Choice, count_fixed, count_per_rank, make_spec
from ...domain.submissions import Difference, Statement, SubmissionEvidence
from ...domain.targets import Formula, TargetSpec
from ...domain.vocabulary import APART
from ...errors import InvalidStatement, LoradarError
from ...schema import to_json
from ..verification.findings import OUTSIDE
from ..verification.matching import Match, match_spec
from ..verification.verify import Verifier
from .near_names import Names
from .safe_regex import LinearMatcher

if TYPE_CHECKING:
    from ...domain.vocabulary import Status

Method = Literal["dataflow", "names", "listing"]

MOST_PATTERNS = 200
"""Patterns listed one by one; the rest are counted."""

LONGEST_SPEC = 16_384
"""Characters of a target spec."""

MOST_MISSED = 32
"""Unmatched names of a spec that get suggestions."""

PROPOSED = "the scanner's proposal"


def gather_evidence(
    scan: Scan, statement: Statement, registered: Sequence[Mapping], method: Method | None = None
) -> SubmissionEvidence:
    """Return the effect of a statement on a scan, compared with registered mappings and the scanner's proposal.

    Args:
        scan: A scan of the statement's architecture.
        statement: The statement; a regex in it is matched by RE2 alone.
        registered: The registered mappings it competes with.
        method: How the layers were found; ``listing`` if the contributor listed them.

    Raises:
        InvalidStatement: If RE2 rejects a regex, or no short spec names the matched layers.
        MissingExtra: If there is a regex, and google-re2 is not installed.
    """
    gathering = _Gathering(scan, statement)
    return gathering.gather(registered, method or ("dataflow" if scan.method == "dataflow" else "names"))


def failure_of(evidence: SubmissionEvidence) -> str | None:
    """Return in one sentence why a statement fails its checks; ``None`` if a reviewer has to decide."""
    check = evidence.verification
    if check is None and not evidence.near:
        return "It matches nothing of this architecture: exclude_modules excludes all that it names."
    if check is None:
        near = dict.fromkeys(name for names in evidence.near.values() for name in names)
        closest = f" Closest: {', '.join(map(repr, near))}." if near else ""
        return f"It matches nothing of this architecture.{closest}"
    if evidence.matched == 0:
        return f"It matches nothing that an adapter fits: {_joined(check.findings)}."
    if check.status == "dead":
        return f"It matches only dead layers: {_joined(check.findings)}."
    return None


def _joined(findings: Sequence[str]) -> str:
    return "; ".join(findings[:3])


@dataclass(frozen=True)
class _Gathering:
    """The evidence on one statement from one scan, each part computed once."""

    scan: Scan
    statement: Statement

    def gather(self, registered: Sequence[Mapping], method: Method) -> SubmissionEvidence:
        layers, statement = self._layers, self.statement
        spec = self._spec if layers else None
        return SubmissionEvidence(
            method=method,
            builds=method != "listing",
            proof=self.scan.proof,
            verification=self._verification if self._matches else None,
            outside=dict(self._outside()),
            near=self._near,
            differences=tuple(self._differences(registered)),
            spec=spec,
            spec_verification=self._verifier.verify(spec, statement.peft_type, statement.preset) if spec else None,
            layers=count_patterns(layers),
            matched=len(layers),
            formula=self._formula,
            coverage=Blocks(self.scan.layers).cover(layers) if layers else (),
        )

    @cached_property
    def _verifier(self) -> Verifier:
        return Verifier(self.scan)

    @cached_property
    def _matches(self) -> tuple[Match, ...]:
        return self._find(self.statement.spec)

    def _find(self, spec: TargetSpec) -> tuple[Match, ...]:
        return match_spec(self.scan, spec, self.statement.peft_type, LinearMatcher)

    @cached_property
    def _layers(self) -> tuple[Layer, ...]:
        """The matched layers that an adapter fits, each once, in the order of the model."""
        return list_adapted(self._matches, self.statement.peft_type)

    @cached_property
    def _verification(self) -> Verification:
        stated = self.statement
        check = self._verifier.verify_matches(stated.spec, stated.peft_type, stated.preset, self._matches)
        missing = [name for name in stated.spec.modules_to_save or () if name in self._near]
        if not missing:
            return check
        findings = (f"modules_to_save {name} matches nothing" for name in missing)
        status: Status = "dead" if check.status == "dead" else "partial"
        return replace(check, status=status, findings=(*check.findings, *findings))

    @cached_property
    def _near(self) -> dict[str, tuple[str, ...]]:
        """For each name of the spec that matches nothing, similar names that would."""
        spec, names = self.statement.spec, Names(self.scan)
        # An excluded layer exists, so its name is not misspelt.
        matches = self._find(replace(spec, exclude_modules=None)) if spec.exclude_modules else self._matches
        matching = {match.target for match in matches}
        missed = [target for target in spec.list_targets() if target not in matching]
        missed += [name for name in spec.modules_to_save or () if not names.is_module(name)]
        near: dict[str, tuple[str, ...]] = dict.fromkeys(missed, ())
        for name in missed[:MOST_MISSED]:
            near[name] = names.near_regex(name) if name is spec.target_modules else names.near(name)
        return near

    def _outside(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield each part outside the blocks, and each other tower, with the patterns matched there."""
        proposals = (p for p in self.scan.proposals if p.preset not in APART)
        proposed = {layer.tower for p in proposals for layer in self._layers_of(p.spec, p.peft_type)}
        outside: dict[str, list[Layer]] = {}
        for layer in _each_once(layer for match in self._matches for layer in match.layers):
            if layer.role in OUTSIDE:
                outside.setdefault(OUTSIDE[layer.role], []).append(layer)
            elif proposed and layer.tower not in proposed:
                outside.setdefault(layer.tower, []).append(layer)
        yield from ((part, tuple(count_patterns(layers))) for part, layers in outside.items())

    def _layers_of(self, spec: TargetSpec, peft_type: str) -> tuple[Layer, ...]:
        """Return the layers that a trusted spec matches."""
        return list_adapted(match_spec(self.scan, spec, peft_type), peft_type)

    def _differences(self, registered: Sequence[Mapping]) -> Iterator[Difference]:
        others: list[tuple[str, str | None, tuple[Layer, ...]]] = [
            (f"{x.source.kind} {x.source.version}, revision {x.revision}", x.id, self._layers_of(x.spec, x.peft_type))
            for x in registered
        ]
        if self._proposal is not None:
            others.append((PROPOSED, None, self._proposed))
        ours = {layer.path for layer in self._layers}
        for against, mapping_id, theirs in others:
            known = {layer.path for layer in theirs}
            more = [layer for layer in self._layers if layer.path not in known]
            less = [layer for layer in theirs if layer.path not in ours]
            yield Difference(against, mapping_id, count_patterns(more), count_patterns(less))

    @cached_property
    def _proposal(self) -> Proposal | None:
        """The scanner's proposal for the same method and preset, if it has one."""
        try:
            return self.scan.propose(self.statement.peft_type, self.statement.preset)
        except LoradarError:
            return None

    @cached_property
    def _proposed(self) -> tuple[Layer, ...]:
        proposal = self._proposal
        return self._layers_of(proposal.spec, self.statement.peft_type) if proposal else ()

    @property
    def _is_as_proposed(self) -> bool:
        return {layer.path for layer in self._layers} == {layer.path for layer in self._proposed}

    @cached_property
    def _saved(self) -> tuple[str, ...]:
        return tuple(name for name in self.statement.spec.modules_to_save or () if name not in self._near)

    @cached_property
    def _choice(self) -> Choice:
        named = self.statement.spec.feedforward_modules or ()
        if isinstance(named, str):
            matcher = LinearMatcher(named)
            scaled = tuple(layer for layer in self._layers if matcher.find(layer.path))
        else:  # PEFT matches the end of the path, even within a segment
            scaled = tuple(layer for layer in self._layers if layer.path.endswith(named))
        return Choice(self.statement.peft_type, self._layers, "", self.statement.preset, scaled)

    @cached_property
    def _spec(self) -> TargetSpec:
        """The spec to publish, generated from the matched layers: it matches the same ones by names alone."""
        parameters = [layer.weight_path for layer in self.scan.layers]
        spec = make_spec(self._choice, self.scan.layers, self.scan.module_paths, parameters, self._saved)
        if self._is_as_proposed and self._proposal and spec.target_parameters:
            spec = replace(spec, target_parameters=self._proposal.spec.target_parameters)
        length = max(sum(map(len, value)) for value in to_json(spec).values() if value)
        if length > LONGEST_SPEC:
            message = (
                f"The matched layers take {length} characters to name, more than {LONGEST_SPEC}: only their indices "
                "distinguish them from others. State whole parts of the model."
            )
            raise InvalidStatement(message, length=length, limit=LONGEST_SPEC)
        return spec

    @property
    def _formula(self) -> Formula | None:
        """The number of trained parameters, if the scan has enough facts to count them.

        A scan has neither the biases of norms nor the parameters of modules trained in full: only its proposals do.
        """
        if not self._layers:
            return None
        proposal, spec = self._proposal, self.statement.spec
        if proposal and self._is_as_proposed and self._saved == (proposal.spec.modules_to_save or ()):
            return proposal.formula
        method = get_method(self.statement.peft_type)
        fits = (method.fits(x.kind, x.groups) or x.kind == "embedding" for x in self._layers)
        is_sized = (method.name == method.family or method.sized_alike) and all(fits)
        if not is_sized or method.family == "LN_TUNING" or spec.modules_to_save:
            return None
        choice = replace(self._choice, family=method.family)
        return Formula(count_per_rank(choice, {}), count_fixed(choice, {}, {}))


def list_adapted(matches: Iterable[Match], peft_type: str) -> tuple[Layer, ...]:
    """Return the layers of the matches that a PEFT type fits, each once."""
    return _each_once(layer for match in matches if match.is_fit(peft_type) for layer in match.layers)


def _each_once(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    return tuple({layer.path: layer for layer in layers}.values())


def count_patterns(layers: Iterable[Layer]) -> dict[str, int]:
    """Return the number of layers of each path pattern, in the order of the model; the rarest are counted together."""
    counts = Counter(pattern_of(layer.path) for layer in layers)
    if len(counts) <= MOST_PATTERNS:
        return dict(counts)
    listed = dict(counts.most_common(MOST_PATTERNS))
    return {**listed, f"({len(counts) - len(listed)} other patterns)": counts.total() - sum(listed.values())}
