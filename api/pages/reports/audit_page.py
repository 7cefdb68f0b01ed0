"""``/audit``: PEFT's entries by version of transformers, and the defects of each."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Annotated, Any, get_args

from fastapi import Query, Request
from starlette.responses import Response

from ....domain.reports.audits import DEFECTS, AuditReport, Defect, Verdict
from ....errors import UnknownName
from ....registry import AuditFilter, report_audit
from ...dependencies import NAME_LENGTH, NAME_PATTERN, OpenRegistry
from ..rendering import PageRouter, fresh_page, page
from .queries import tidy

VERDICTS: dict[Verdict, tuple[str, str]] = {
    "dead": ("trains nothing", "bad"),
    "partial": ("trains fewer or other layers than intended", "warn"),
    "unproven": ("no defect found, not every layer got a gradient", ""),
    "live": ("every matched layer got a gradient", "good"),
    "unscanned": ("was not checked on this version", ""),
    "unknown": ("this library has no such model type", ""),
}
"""What each outcome means, and the class of its stamp."""

router = PageRouter()

VersionOf = Annotated[str | None, Query(pattern=NAME_PATTERN, max_length=64)]
Choice = Annotated[str, Query(max_length=64)]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The filters as they were sent; a form sends an empty text for each that was left alone."""

    library_version: str | None
    peft_version: str | None
    verdict: str
    defect: str
    peft_type: str
    q: str

    def to_query(self, **changes: str | None) -> dict[str, str | None]:
        """Return the query with these filters, without empty ones, but for some values."""
        return {name: value or None for name, value in (asdict(self) | changes).items()}

    def to_filter(self) -> AuditFilter:
        """Return the filter.

        Raises:
            UnknownName: If there is no such outcome or kind of finding.
        """
        verdict: Any = _known("outcome", self.verdict, get_args(Verdict))
        defect: Any = _known("finding", self.defect, get_args(Defect))
        return AuditFilter(verdict, defect, self.peft_type or None, self.q)


def _known(what: str, given: str, known: tuple[str, ...]) -> str | None:
    if given and given not in known:
        raise UnknownName(given, known, f"There is no {what} {given!r}.")
    return given or None


@router.page("/audit", twin="/v1/audit")
def show_audit(  # noqa: PLR0913 - the filters
    request: Request,
    registry: OpenRegistry,
    *,
    library_version: VersionOf = None,
    peft_version: VersionOf = None,
    verdict: Choice = "",
    defect: Choice = "",
    peft_type: Choice = "",
    q: Annotated[str, Query(max_length=NAME_LENGTH)] = "",
) -> Response:
    """Return the page of the audit; with a filter that does not exist, the whole one beside the error."""
    if tidied := tidy(request):
        return tidied
    chosen = Chosen(library_version, peft_version, verdict, defect, peft_type, q)
    error = None
    try:
        report = report_audit(registry, library_version, peft_version)
        shown = chosen.to_filter().apply(report)
    except UnknownName as unknown:
        error = unknown
        shown = report = report_audit(registry)
        chosen = Chosen(None, None, "", "", "", "")
    context = {"report": report, "chosen": chosen, "groups": [*group(shown)], "shown": shown, "error": error}
    context |= {"verdicts": VERDICTS, "defects": DEFECTS}
    if error:
        return fresh_page(request, "reports/audit.html", status_code=HTTPStatus(error.status), **context)
    return page(request, "reports/audit.html", **context)


def group(report: AuditReport) -> Iterator[tuple[Verdict, list[Any], list[Any]]]:
    """Yield, for each outcome, the entries with something to read, and the others."""
    for verdict in VERDICTS:
        entries = [entry for entry in report.entries if entry.verdict == verdict]
        if entries:
            is_told = verdict not in ("unknown", "unscanned")
            told = [entry for entry in entries if entry.findings and is_told]
            yield verdict, told, [entry for entry in entries if entry not in told]
