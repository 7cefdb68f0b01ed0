"""``/v1/compare``, ``/v1/audit``, ``/v1/placement``: two mappings, PEFT's entries, and which layers train best."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from ...domain.reports.audits import AuditReport, Defect, Verdict
from ...domain.reports.placement import Placement, load_placement
from ...domain.reports.side_by_side import SideBySide
from ...registry import AuditFilter, Wanted, put_side_by_side, report_audit
from ...schema import to_json
from ..dependencies import NAME_LENGTH, NAME_PATTERN, REFERENCE_PATTERN, OpenRegistry, cached
from ..errors import NOT_FOUND
from .architectures import NameQuery

router = APIRouter(prefix="/v1", tags=["reports"])

VersionOf = Annotated[str | None, Query(pattern=NAME_PATTERN, max_length=64, description="The newest if left out")]
VerdictQuery = Annotated[Verdict | None, Query(description="Only entries with this outcome")]
DefectQuery = Annotated[Defect | None, Query(description="Only entries with a finding of this kind")]
MethodQuery = Annotated[
    str | None, Query(pattern=r"^[A-Za-z0-9_]+$", max_length=64, description="Only entries for this PEFT method")
]


Side = Annotated[
    str,
    Query(
        min_length=1,
        max_length=NAME_LENGTH,
        pattern=REFERENCE_PATTERN,
        description="Architecture in any spelling, or the id of a revision",
        examples=["llama"],
    ),
]
PresetQuery = Annotated[
    str | None,
    Query(
        pattern=r"^[A-Za-z0-9_-]+$",
        max_length=32,
        description="Preset of that side; if left out, `recommended` for LoRA, else `default`",
    ),
]


@router.get(
    "/compare", summary="Compare two mappings side by side", responses={200: {"model": SideBySide}, **NOT_FOUND}
)
def compare(  # noqa: PLR0913 - both sides
    request: Request,
    registry: OpenRegistry,
    *,
    a: Side,
    b: Side,
    a_preset: PresetQuery = None,
    b_preset: PresetQuery = None,
    peft_type: Annotated[str, Query(pattern=r"^[A-Za-z0-9_]+$", max_length=64, description="PEFT method")] = "LORA",
) -> Response:
    """Return two mappings, of one architecture or of two, with the layers that do the same in one row."""
    wanted = Wanted(a, a_preset, peft_type), Wanted(b, b_preset, peft_type)
    return cached(request, JSONResponse(to_json(put_side_by_side(registry, *wanted))))


@router.get("/audit", summary="Get the audit of PEFT's entries", responses={200: {"model": AuditReport}, **NOT_FOUND})
def get_audit(  # noqa: PLR0913 - the filters
    request: Request,
    registry: OpenRegistry,
    *,
    library_version: VersionOf = None,
    peft_version: VersionOf = None,
    verdict: VerdictQuery = None,
    defect: DefectQuery = None,
    peft_type: MethodQuery = None,
    q: NameQuery = "",
) -> Response:
    """Return the defects of each entry of PEFT's tables on a version of transformers, the worst first."""
    report = report_audit(registry, library_version, peft_version)
    return cached(request, JSONResponse(to_json(AuditFilter(verdict, defect, peft_type, q).apply(report))))


@router.get("/placement", summary="Get the results of the placement bench", responses={200: {"model": Placement}})
def get_placement(request: Request) -> Response:
    """Return test losses of adapters at every placement, at equal size, with intervals of their differences."""
    return cached(request, JSONResponse(to_json(load_placement())))
