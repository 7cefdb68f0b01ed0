"""Describe the defects of PEFT's entries on one version of a library."""

import re
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ...schema import Config, schema_config
from ..mappings import Verification
from ..targets import TargetSpec

Verdict = Literal["dead", "partial", "unproven", "live", "unscanned", "unknown"]
"""The status of a verification, or the reason for none: no scan was possible, or the library knows no such name."""

Defect = Literal[
    "no-match",
    "no-weight",
    "kind",
    "dead-layers",
    "bypassed",
    "other-tower",
    "outside",
    "missed-layers",
    "missed-blocks",
    "experts",
    "feedforward",
    "cut-short",
]

DEFECTS: dict[Defect, tuple[str, str]] = {
    "feedforward": ("a feed-forward name does not fit", r"^feedforward "),
    "no-match": ("a target matches nothing", r" matches nothing\b"),
    "no-weight": ("a target matches modules without a weight", r" no adapter can live on: "),
    "kind": ("a target matches a kind of layer that the method does not adapt", r", which \w+ does not adapt$"),
    "dead-layers": ("layers get no gradient", r" is dead in \d"),
    "bypassed": ("a kernel bypasses layers", r" is bypassed in \d"),
    "missed-blocks": ("blocks are left out", r"^reaches \d+ of \d[\d,]* block"),
    "other-tower": ("another tower is reached", r"^reaches [\d,]+ \w+ layers?: "),
    "outside": ("a head, router, embedding or projector is reached", r"^reaches the "),
    "missed-layers": ("layers of a role are left out", r"^covers "),
    "experts": ("experts are left out", r"^leaves the experts"),
    "cut-short": ("the scan ran out of time", r"^the scan ran out of time"),
}
"""The kinds of findings: what each means, and how its text is told. A text is of the first kind that it matches."""


def find_defect(finding: str) -> Defect | None:
    """Return the kind of a finding by its text; ``None`` for the reason why an entry was not checked."""
    return next((kind for kind, (_, pattern) in DEFECTS.items() if re.search(pattern, finding)), None)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An entry of PEFT's tables; methods whose tables have the same entry with the same outcome share one."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    name: str
    """The model type."""
    peft_types: tuple[str, ...]
    """PEFT's methods that have it."""
    verdict: Verdict
    spec: TargetSpec
    verification: Verification | None
    """What it matches on this version; null if it was not checked."""
    findings: tuple[str, ...]
    """What is wrong, or worth knowing, in words."""
    defects: tuple[Defect, ...]
    """The kinds of these."""
    suggestion: TargetSpec | None
    """The smallest change that mends it; null where nothing is wrong."""
    is_registered: bool
    """Whether the architecture was ever scanned."""


@dataclass(frozen=True, slots=True)
class AuditReport:
    """PEFT's entries on one version of a library."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (AUDIT_EXAMPLE,))

    library: str
    library_version: str
    """Empty if no entry was verified."""
    library_versions: tuple[str, ...]
    """Versions that entries were verified on, newest first."""
    peft_version: str
    peft_versions: tuple[str, ...]
    """Versions of PEFT whose entries are registered, newest first."""
    totals: dict[str, int]
    """Entries of single tables by verdict, before the filters."""
    peft_types: tuple[str, ...]
    """PEFT's methods that have entries."""
    defects: dict[str, int] = field(metadata={"description": "Entries with each kind of finding, before the filters"})
    entries: tuple[AuditEntry, ...] = ()
    """Those that pass the filters, the worst first."""


AUDIT_EXAMPLE: AuditReport = AuditReport(
    "transformers",
    "5.24.0",
    ("5.24.0", "5.23.0"),
    "0.21.2",
    ("0.21.2",),
    {"live": 1, "dead": 1},
    ("LORA", "PVERA"),
    {"no-match": 1},
    (
        AuditEntry(
            "dinov2",
            ("PVERA",),
            "dead",
            TargetSpec(("query", "value")),
            Verification("dead", "5.24.0", {"query": {}, "value": {}}, 0.0, ("query matches nothing",)),
            ("query matches nothing",),
            ("no-match",),
            TargetSpec(("q_proj", "v_proj")),
            is_registered=True,
        ),
    ),
)
