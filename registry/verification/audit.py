"""Audit stored mappings against one version of a library, by recorded verifications or by new scans, and report on it.

The report on PEFT's tables is Markdown; the same outcomes give the same text.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from ...domain.mappings import Mapping, Verification
from ...domain.methods import TARGETED
from ...domain.reports.audits import Verdict
from ...domain.scans import Scan
from ...domain.targets import TargetSpec
from ...schema import to_json
from ..peft_constants.reading import IA3_FEEDFORWARD_TABLE, TARGETS_TABLE, load_constants, peft_type_of
from ..records import Outcome
from .verify import Verifier

Suggestions = dict[tuple[str, str, str], TargetSpec]
"""Target specs by architecture, PEFT type and preset."""

VERDICTS: tuple[Verdict, ...] = ("live", "unproven", "partial", "dead", "unscanned", "unknown")
WRONG = ("dead", "partial")
WIDER = ("attention", "all-linear")
"""Presets that an entry may have meant, if the default's proposal lacks some of its targets."""
NAMED_AT_MOST = 3
"""Number of tables up to which their names are listed; of more, their pattern is."""

INTRODUCTION = """\
# PEFT's target tables, audited

Every entry of the target tables in peft {peft_version} (`peft/utils/constants.py`) on the default
configuration of its model type in {library} {library_version}: {entries} entries, {counted}.
Written by `make audit` from the verifications in the catalog; `loradar audit --source peft --rescan` repeats them.

*live*: every matched layer got a gradient. *unproven*: no defect was found, and not every layer got a gradient.
*partial*: it trains fewer or other layers than intended. *dead*: it trains nothing. *unknown*: the library
has no such model type."""

Group = Sequence[Outcome]


@dataclass
class Audit:
    """Verify the mappings of one library.

    Attributes:
        known: Names the library knows.
        suggestions: Replacements for wrong mappings; the proposals of a scan replace those on record.
    """

    known: Collection[str]
    suggestions: Suggestions
    _unscanned: dict[str, str] = field(default_factory=dict)

    def check(self, mappings: Iterable[Mapping], scans: Iterable[tuple[str, Scan | str]]) -> dict[str, Verification]:
        """Return the verifications of the mappings of scanned architectures, by id.

        Args:
            mappings: Mappings of one library.
            scans: A scan by name, or the reason there is none.
        """
        by_name: dict[str, list[Mapping]] = defaultdict(list)
        for mapping in mappings:
            by_name[mapping.name].append(mapping)
        checks: dict[str, Verification] = {}
        for name, scan in scans:
            if isinstance(scan, str):
                self._unscanned[name] = scan
                continue
            proposals = scan.proposals
            self.suggestions.update({(scan.architecture.name, p.peft_type, p.preset): p.spec for p in proposals})
            verifier = Verifier(scan)
            checks.update((mapping.id, verifier.check(mapping)) for mapping in by_name[name])
        return checks

    def outcome(self, mapping: Mapping) -> Outcome:
        """Return the outcome of a mapping, by the verification it carries."""
        if mapping.name not in self.known:
            return Outcome(mapping, "unknown", f"the installed {mapping.library} does not know it")
        if mapping.name in self._unscanned or mapping.verification is None:
            return Outcome(mapping, "unscanned", self._unscanned.get(mapping.name, "not scanned"))
        status, suggestion = mapping.verification.status, None
        if status in WRONG:
            suggestion = self._suggest(mapping, mapping.verification)
        return Outcome(mapping, status, suggestion=suggestion)

    def _suggest(self, mapping: Mapping, check: Verification) -> TargetSpec | None:
        """Return the smallest change that mends a wrong mapping.

        That is the scanner's first proposal with all its sound targets, else the mapping without the others.
        """
        sound = {target for target, kinds in check.counts.items() if kinds}
        types = [mapping.peft_type, *([TARGETED] if mapping.peft_type in _types_like_lora() else [])]
        presets = [mapping.preset, *WIDER]
        found = [self.suggestions.get((mapping.name, kind, preset)) for kind in types for preset in presets]
        known = [spec for spec in found if spec]
        kept = next((spec for spec in known if sound <= {*(spec.target_modules or ())}), None)
        return kept or _without_unmatched(mapping, check) or next(iter(known), None)


def _without_unmatched(mapping: Mapping, check: Verification) -> TargetSpec | None:
    """Return an entry without the targets that match nothing, if it has no other defect."""
    targets = mapping.target_modules
    if not isinstance(targets, tuple) or check.status != "partial":
        return None
    kept = tuple(target for target in targets if check.counts.get(target))
    gone = {f"{target} matches nothing" for target in targets if target not in kept}
    gone |= {f"feedforward {finding}" for finding in gone}
    if not kept or not gone or not gone >= {*check.findings}:
        return None
    scaled = mapping.feedforward_modules
    feedforward = tuple(name for name in scaled if name in kept) if isinstance(scaled, tuple) else scaled
    return replace(mapping.spec, target_modules=kept, feedforward_modules=feedforward)


def suggestions_on_record(proposed: Iterable[Mapping]) -> Suggestions:
    """Return the scanner's stored mappings of a library as suggestions."""
    return {(mapping.name, mapping.peft_type, mapping.preset): mapping.spec for mapping in proposed}


@cache
def _types_like_lora() -> frozenset[str]:
    """Return the PEFT types whose table agrees with LoRA's on most architectures that both have."""
    tables = {peft_type_of(name): table for name, table in load_constants().tables.items()}
    lora = tables[TARGETED]
    agreeing = {
        peft_type: [targets == lora[name] for name, targets in table.items() if name in lora]
        for peft_type, table in tables.items()
        if peft_type
    }
    return frozenset(peft_type for peft_type, same in agreeing.items() if 2 * sum(same) > len(same))


def peft_report(outcomes: Sequence[Outcome], library: str, library_version: str) -> str:
    """Return the report on PEFT's entries for one library, in Markdown."""
    totals = Counter(outcome.verdict for outcome in outcomes)
    counted = ", ".join(f"{totals[verdict]:,} {verdict}" for verdict in VERDICTS if totals[verdict])
    introduction = INTRODUCTION.format(
        peft_version=load_constants().version,
        library=library,
        library_version=library_version,
        entries=f"{len(outcomes):,}",
        counted=counted,
    )
    unchecked = Counter((o.mapping.name, o.reason) for o in outcomes if o.reason and o.mapping.verification is None)
    rows = [f"| `{name}` | {count} | {reason} |" for (name, reason), count in sorted(unchecked.items())]
    rest = ["## Not checked", "", "| model type | tables | why |", "| --- | --- | --- |", *rows]
    sections = [_summary(outcomes), _wrong(outcomes), _remarks(outcomes), rest]
    return "\n\n".join([introduction, *("\n".join(lines) for lines in sections)]) + "\n"


def _summary(outcomes: Sequence[Outcome]) -> list[str]:
    lines = ["## Tables", "", f"| table | entries | {' | '.join(VERDICTS)} | wrong |", "| --- |" + " --- |" * 8]
    by_type: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_type[outcome.mapping.peft_type].append(outcome)
    for table in load_constants().tables:
        own = by_type.get(peft_type_of(table) or "", [])
        if own:
            totals = Counter(outcome.verdict for outcome in own)
            counts = " | ".join(str(totals[verdict]) for verdict in VERDICTS)
            wrong = ", ".join(sorted(f"`{outcome.mapping.name}`" for outcome in own if outcome.verdict in WRONG))
            lines.append(f"| `{table}` | {len(own)} | {counts} | {wrong} |")
    return lines


def _wrong(outcomes: Iterable[Outcome]) -> list[str]:
    groups = _group(outcome for outcome in outcomes if outcome.verdict in WRONG)
    lines = ["## What is wrong"]
    for group in groups:
        first = group[0]
        lines += ["", f"### `{first.mapping.name}` in {_methods(group)}: {first.verdict}", ""]
        lines += [f"- {fact}" for fact in _describe(group)]
    return lines if groups else [*lines, "", "Nothing."]


def _describe(group: Group) -> Iterator[str]:
    """Yield the facts of a wrong entry: its tables, its value, its matches, its findings and the suggested value."""
    mapping = group[0].mapping
    types = {outcome.mapping.peft_type for outcome in group}
    tables = [table for table in load_constants().tables if peft_type_of(table) in types]
    tables += [IA3_FEEDFORWARD_TABLE] if "IA3" in types else []
    if len(tables) <= NAMED_AT_MOST:
        yield f"In {', '.join(f'`{name}`' for name in tables)}"
    else:
        yield f"In `{TARGETS_TABLE.format('*')}` of {', '.join(sorted(types))}"
    yield from (f"Entry: {line}" for line in _entry(mapping.name, mapping.spec))
    if mapping.verification:
        matches = (
            f"`{target}` {', '.join(f'{count} {kind}' for kind, count in kinds.items()) or 'nothing'}"
            for target, kinds in mapping.verification.counts.items()
        )
        yield f"Hits today: {'; '.join(matches)}"
    yield from (f"Wrong: {finding}" for finding in group[0].findings)
    if group[0].suggestion:
        yield from (f"Suggested: {line}" for line in _entry(mapping.name, group[0].suggestion))


def _entry(name: str, spec: TargetSpec) -> Iterator[str]:
    for key, value in to_json(spec).items():
        if value:
            suffix = "" if key == "target_modules" else f" ({key})"
            yield f"`{json.dumps(name)}: {json.dumps(value)}`{suffix}"


def _remarks(outcomes: Iterable[Outcome]) -> list[str]:
    groups = _group(o for o in outcomes if o.findings and o.mapping.verification and o.verdict not in WRONG)
    lines = ["## Worth knowing", "", "No fault of an entry, but not what a reader may expect."]
    if groups:
        lines += ["", "| model type | methods | verdict | what |", "| --- | --- | --- | --- |"]
    for group in groups:
        first = group[0]
        lines.append(f"| `{first.mapping.name}` | {_methods(group)} | {first.verdict} | {'; '.join(first.findings)} |")
    return lines


def _group(outcomes: Iterable[Outcome]) -> list[list[Outcome]]:
    """Return groups of outcomes that differ in nothing but the method, sorted by name."""
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        key = [outcome.mapping.name, outcome.verdict, outcome.findings]
        specs = [to_json(spec) if spec else None for spec in (outcome.mapping.spec, outcome.suggestion)]
        groups[json.dumps([*key, *specs])].append(outcome)
    return [groups[key] for key in sorted(groups)]


def _methods(group: Group) -> str:
    types = sorted({outcome.mapping.peft_type for outcome in group})
    return ", ".join(types) if len(types) <= NAMED_AT_MOST else f"{len(types)} tables"
