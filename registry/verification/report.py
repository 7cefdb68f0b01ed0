"""The audit of PEFT's tables as a document, ready to be filed upstream; the same outcomes make the same text."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from ...domain.targets import TargetSpec
from ..peft_constants.reading import IA3_FEEDFORWARD_TABLE, TARGETS_TABLE, load_constants, peft_type_of
from ..results import Outcome, Verdict

VERDICTS: tuple[Verdict, ...] = ("live", "unproven", "partial", "dead", "unscanned", "unknown")
WRONG = ("dead", "partial")
NAMED_AT_MOST = 3
"""How many tables are named before only their pattern is."""

Group = Sequence[Outcome]


def peft_report(outcomes: Sequence[Outcome], library: str, library_version: str) -> str:
    """Return the report on PEFT's entries for one library, in Markdown."""
    sections = [
        _introduction(outcomes, library, library_version),
        _summary(outcomes),
        _wrong(outcomes),
        _remarks(outcomes),
        _unknown(outcomes),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _introduction(outcomes: Sequence[Outcome], library: str, library_version: str) -> list[str]:
    totals = Counter(outcome.verdict for outcome in outcomes)
    counted = ", ".join(f"{totals[verdict]:,} {verdict}" for verdict in VERDICTS if totals[verdict])
    tables = f"the target tables in peft {load_constants().version} (`peft/utils/constants.py`)"
    return [
        "# PEFT's target tables, audited",
        "",
        f"Every entry of {tables} on the default",
        f"configuration of its model type in {library} {library_version}: {len(outcomes):,} entries, {counted}.",
        "Made by `make audit` from the checks in the catalog; `loradar audit --source peft --rescan` makes them anew.",
        "",
        "*live*: every layer hit was seen to get a gradient. *unproven*: nothing wrong was found, nothing was trained.",
        "*partial*: it trains less, or something else, than it says. *dead*: it trains nothing. *unknown*: the library",
        "has no such model type.",
    ]


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
    groups = _groups(outcome for outcome in outcomes if outcome.verdict in WRONG)
    lines = ["## What is wrong"]
    for group in groups:
        first = group[0]
        lines += ["", f"### `{first.mapping.name}` in {_methods(group)}: {first.verdict}", ""]
        lines += [f"- {says}" for says in _told(group)]
    return lines if groups else [*lines, "", "Nothing."]


def _told(group: Group) -> Iterator[str]:
    """Yield the facts of an entry: what it says, what that hits, what is wrong, and what to write instead."""
    mapping = group[0].mapping
    yield f"In {_tables(group)}"
    yield from (f"Entry: {line}" for line in _entry(mapping.name, mapping.spec))
    if mapping.verification:
        hits = mapping.verification.counts.items()
        yield "Hits today: " + "; ".join(f"`{target}` {_kinds(kinds)}" for target, kinds in hits)
    yield from (f"Wrong: {finding}" for finding in group[0].findings)
    if group[0].suggestion:
        yield from (f"Suggested: {line}" for line in _entry(mapping.name, group[0].suggestion))


def _tables(group: Group) -> str:
    """Return the names of the tables that hold an entry; of many, their pattern and what it stands for."""
    types = {outcome.mapping.peft_type for outcome in group}
    names = [table for table in load_constants().tables if peft_type_of(table) in types]
    names += [IA3_FEEDFORWARD_TABLE] if "IA3" in types else []
    if len(names) <= NAMED_AT_MOST:
        return ", ".join(f"`{name}`" for name in names)
    return f"`{TARGETS_TABLE.format('*')}` of {', '.join(sorted(types))}"


def _entry(name: str, spec: TargetSpec) -> Iterator[str]:
    for field, value in spec.to_dict().items():
        if value:
            told = "" if field == "target_modules" else f" ({field})"
            yield f"`{json.dumps(name)}: {json.dumps(value)}`{told}"


def _kinds(kinds: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "nothing"


def _remarks(outcomes: Iterable[Outcome]) -> list[str]:
    groups = _groups(o for o in outcomes if o.findings and o.mapping.verification and o.verdict not in WRONG)
    lines = ["## Worth knowing", "", "No fault of an entry, but not what a reader may expect."]
    if groups:
        lines += ["", "| model type | methods | verdict | what |", "| --- | --- | --- | --- |"]
    for group in groups:
        first = group[0]
        told = "; ".join(first.findings)
        lines.append(f"| `{first.mapping.name}` | {_methods(group)} | {first.verdict} | {told} |")
    return lines


def _unknown(outcomes: Iterable[Outcome]) -> list[str]:
    tables: Counter[tuple[str, str]] = Counter()
    for outcome in outcomes:
        if outcome.mapping.verification is None and outcome.reason:
            tables[outcome.mapping.name, outcome.reason] += 1
    lines = ["## Not checked", "", "| model type | tables | why |", "| --- | --- | --- |"]
    return [*lines, *(f"| `{name}` | {count} | {why} |" for (name, why), count in sorted(tables.items()))]


def _groups(outcomes: Iterable[Outcome]) -> list[list[Outcome]]:
    """Return outcomes that say the same of the same entry together, by name."""
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        told = [outcome.mapping.name, outcome.verdict, outcome.findings]
        specs = [spec.to_dict() if spec else None for spec in (outcome.mapping.spec, outcome.suggestion)]
        groups[json.dumps([*told, *specs])].append(outcome)
    return [groups[key] for key in sorted(groups)]


def _methods(group: Group) -> str:
    types = sorted({outcome.mapping.peft_type for outcome in group})
    return ", ".join(types) if len(types) <= NAMED_AT_MOST else f"{len(types)} tables"
