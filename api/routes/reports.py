"""``/v1/placement``: which layers train best, as measured by our own bench."""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from ...domain.reports.placement import Placement, load_placement
from ...schema import to_json
from ..dependencies import cached

router = APIRouter(prefix="/v1", tags=["reports"])


@router.get("/placement", summary="Get the results of the placement bench", responses={200: {"model": Placement}})
def get_placement(request: Request) -> Response:
    """Return test losses of adapters at every placement, at equal size, with intervals of their differences."""
    return cached(request, JSONResponse(to_json(load_placement())))
