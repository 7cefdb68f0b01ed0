"""``/v1/audit`` and ``/v1/placement``: what is wrong with PEFT's entries, and which layers train best."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from ...domain.reports.audits import AuditReport, Defect, Verdict
from ...domain.reports.placement import Placement, load_placement
from ...registry import AuditFilter, report_audit
from ...schema import to_json
from ..dependencies import NAME_PATTERN, OpenRegistry, cached
from ..errors import NOT_FOUND
from .architectures import PartQuery

router = APIRouter(prefix="/v1", tags=["reports"])

VersionOf = Annotated[str | None, Query(pattern=NAME_PATTERN, max_length=64, description="The newest if left out")]
VerdictQuery = Annotated[Verdict | None, Query(description="Only entries with this outcome")]
DefectQuery = Annotated[Defect | None, Query(description="Only entries with a finding of this kind")]
MethodQuery = Annotated[
    str | None, Query(pattern=r"^[A-Za-z0-9_]+$", max_length=64, description="Only entries for this PEFT method")
]


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
    q: PartQuery = "",
) -> Response:
    """Return what is wrong with each entry of PEFT's tables on a version of transformers, the worst first."""
    report = report_audit(registry, library_version, peft_version)
    return cached(request, JSONResponse(to_json(AuditFilter(verdict, defect, peft_type, q).apply(report))))


@router.get("/placement", summary="Get the results of the placement bench", responses={200: {"model": Placement}})
def get_placement(request: Request) -> Response:
    """Return test losses of adapters at every placement, at equal size, with intervals of their differences."""
    return cached(request, JSONResponse(to_json(load_placement())))
