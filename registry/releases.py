"""The page about a release of a library: its changes in plain words, from the catalogs before and after."""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..catalog.entries import Catalog, CatalogEntry
from ..catalog.layer_names import digest_names, extend_history
from ..domain.mappings import Verification
from ..domain.vocabulary import EVERYTHING
from .mappings.renames import find_renames

_SHOWN = 60
"""Characters of a target that is a regex."""

Both = tuple[CatalogEntry, CatalogEntry]
"""An architecture in the older and in the newer version."""


@dataclass(frozen=True)
class Release:
    """Two versions of a library."""

    older: Catalog
    newer: Catalog

    @cached_property
    def added(self) -> list[CatalogEntry]:
        """The architectures that only the newer version has."""
        known = {entry.architecture.name for entry in self.older.entries}
        return [entry for entry in self.newer.entries if entry.architecture.name not in known]

    @cached_property
    def removed(self) -> list[str]:
        """The names of those that only the older version has."""
        known = {entry.architecture.name for entry in self.newer.entries}
        return [entry.architecture.name for entry in self.older.entries if entry.architecture.name not in known]

    @cached_property
    def both(self) -> list[Both]:
        """The architectures of both versions."""
        known = {entry.architecture.name: entry for entry in self.older.entries}
        return [(known[e.architecture.name], e) for e in self.newer.entries if e.architecture.name in known]

    @cached_property
    def rebuilt(self) -> list[Both]:
        """Those that are not known to be built and run as before, and so were scanned again."""
        tried = ((old, new) for old, new in self.both if not (old.unscanned and new.unscanned))
        return [(old, new) for old, new in tried if not new.digest or old.digest != new.digest]

    @cached_property
    def renamed(self) -> list[Both]:
        """Those whose layers have other names or kinds."""
        scanned = ((old, new) for old, new in self.rebuilt if not old.unscanned and not new.unscanned)
        return [(old, new) for old, new in scanned if _names(old) != _names(new)]

    def extend_history(self, lines: Sequence[str]) -> list[str]:
        """Return the lines of the history of layer names, with the newer version if the older is its last release."""
        if json.loads(lines[0])["releases"][-1] != self.older.header.library_version:
            return [*lines]
        older, newer = (
            {entry.architecture.name: _names(entry) for entry in catalog.entries}
            for catalog in (self.older, self.newer)
        )
        return extend_history(lines, older, newer, self.newer.header.library_version)

    @cached_property
    def scanned(self) -> list[CatalogEntry]:
        """The new architectures, and those scanned again."""
        return sorted([*self.added, *(new for _, new in self.rebuilt)], key=lambda entry: entry.architecture.name)

    def page(self) -> str:
        """Return the page about the newer version as Markdown."""
        header, before = self.newer.header, self.older.header.library_version
        kept, again = sum(old.digest == new.digest is not None for old, new in self.both), len(self.rebuilt)
        failed = [(entry, entry.unscanned) for entry in self.newer.entries if entry.unscanned]
        unproven = [(entry, explain_unproven(entry)) for entry in self.scanned if not entry.unscanned]
        lines = [
            f"# {header.library} {header.library_version}",
            f"Compared with {before}. Written by `loradar catalog update` (loradar {header.loradar}).\n",
            f"- {len(self.newer.entries):,} architectures: {len(self.added)} new, {len(self.removed)} removed.",
            f"- {kept:,} are built and run as in {before}; their proofs were carried over.",
            f"- {again:,} were scanned again; the layers of {len(self.renamed)} have other names or kinds.",
            *self._list_new_types(),
            *_section("Removed", [f"- `{name}`" for name in self.removed]),
            *_section("Changed layers", [line for pair in self.renamed for line in _describe_change(*pair)]),
            *_section("Other targets for the same names", [*self._list_retargeted()]),
            *_section(f"PEFT {header.peft}: entries that no longer work", [*self._list_died()]),
            *_section("Not scanned", [_describe_failure(*each) for each in failed]),
            *_section("Scanned, but not proved", [_describe_failure(entry, why) for entry, why in unproven if why]),
        ]
        return "\n".join(lines) + "\n"

    def _list_new_types(self) -> Iterator[str]:
        scanned = [entry for entry in self.added if not entry.unscanned]
        proved = [entry for entry in scanned if not explain_unproven(entry)]
        rows = [
            f"| `{entry.architecture.name}` | `{entry.architecture.class_name}` | {_describe_targets(entry)} "
            f"| {'all live' if entry in proved else 'not all'} |"
            for entry in scanned
        ]
        if self.added:
            total = len(self.added)
            shares = (
                f"{len(some)} {verb} ({len(some) / total:.0%})"
                for some, verb in ((scanned, "scanned"), (proved, "proved"))
            )
            head = ["| name | class | LoRA's default targets | proved |", "| --- | --- | --- | --- |"]
            yield from _section("New types", [f"{total}: {', '.join(shares)}.\n", *head, *rows])

    def _list_retargeted(self) -> Iterator[str]:
        """Yield the architectures with other default targets, though their layers are called as before."""
        for old, new in self.rebuilt:
            targets = [_describe_targets(entry) for entry in (old, new)]
            is_scanned = not old.unscanned and not new.unscanned
            if is_scanned and (old, new) not in self.renamed and targets[0] != targets[1]:
                yield f"- `{new.architecture.name}`: {targets[0]}, now {targets[1]}"

    def _list_died(self) -> Iterator[str]:
        for old, new in self.both:
            before = dict(old.peft)
            for peft_type, check in new.peft:
                if peft_type in before and _works(before[peft_type]) and not _works(check):
                    findings = f": {'; '.join(check.findings)}" if check.findings else ""
                    yield f"- `{new.architecture.name}`, {peft_type}, is {check.status}{findings}"


def _names(entry: CatalogEntry) -> str | None:
    """Return the digest of the names of an entry's layers; ``None`` without a scan."""
    return None if entry.unscanned else digest_names((slot.pattern, slot.kind) for slot in entry.slots)


def explain_unproven(entry: CatalogEntry) -> str | None:
    """Return why a proposal of an entry is not proved live; ``None`` if all are.

    The preset ``everything`` is not asked for: it also holds what a default forward does not call.
    """
    checked = zip(entry.proposals, entry.checks, strict=True)
    open_checks = [check for proposal, check in checked if proposal.preset != EVERYTHING and check.status != "live"]
    if not open_checks:
        return None
    findings = dict.fromkeys(finding for check in open_checks for finding in check.findings)
    of_layers = dict.fromkeys(slot.proof for slot in entry.slots if slot.live is None and slot.proof)
    return "; ".join((*findings, *of_layers)) or entry.proof or "no proof was tried"


def _works(check: Verification) -> bool:
    return check.status not in ("dead", "partial")


def _section(title: str, lines: Sequence[str]) -> Iterator[str]:
    """Yield a section, if it has any lines."""
    if lines:
        yield f"\n## {title}"
        yield from lines


def _describe_failure(entry: CatalogEntry, reason: str | None) -> str:
    return f"- `{entry.architecture.name}`: {reason}"


def _describe_change(old: CatalogEntry, new: CatalogEntry) -> Iterator[str]:
    """Yield an architecture with its renames, and the other layers that are new or gone."""
    renames = find_renames(old.slots, new.slots)
    renamed = {path for rename in renames for path in (rename.old, rename.new)}
    before, after = ({slot.pattern for slot in entry.slots} for entry in (old, new))
    gone, fresh = (_outside(paths, renamed) for paths in (before - after, after - before))
    targets = [_describe_targets(entry) for entry in (old, new)]
    yield f"- `{new.architecture.name}`" + (
        f": targets {targets[0]}, now {targets[1]}" if targets[0] != targets[1] else ""
    )
    yield from (f"  - `{rename.old or '(root)'}` is now `{rename.new or '(root)'}`" for rename in renames)
    yield from (f"  - gone: `{path}`" for path in gone)
    yield from (f"  - new: `{path}`" for path in fresh)


def _outside(paths: Iterable[str], starts: Collection[str]) -> list[str]:
    """Return the paths below none of the starts."""
    return sorted(path for path in paths if not any(path == start or path.startswith(f"{start}.") for start in starts))


def _describe_targets(entry: CatalogEntry) -> str:
    """Return the targets of LoRA's default preset as text."""
    proposal = next((p for p in entry.proposals if (p.peft_type, p.preset) == ("LORA", "default")), None)
    targets = proposal.spec.list_targets() if proposal else ()
    cut = (target if len(target) <= _SHOWN else f"{target[:_SHOWN]}..." for target in targets)
    return ", ".join(f"`{target}`".replace("|", "\\|") for target in cut) or "nothing"
