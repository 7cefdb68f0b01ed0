"""``POST /v1/check``: check the LoRA part of a training configuration."""

from fastapi import APIRouter

from ...registry import check_text
from ...schema import to_json
from ...training_configs.config_checks import ConfigCheck
from ..dependencies import OpenRegistry
from ..errors import error_responses
from ..requests import CheckRequest, StrictRoute

router = APIRouter(prefix="/v1", tags=["check"], route_class=StrictRoute)


@router.post(
    "/check",
    summary="Check a training configuration",
    response_model=ConfigCheck,
    responses=error_responses(400, 404, 413, 415, 422, 501),
)
def check(body: CheckRequest, registry: OpenRegistry) -> object:
    """Compare the LoRA part of a configuration with the layers of its model, as the registry has them.

    Nothing that is sent is run, and no file of the service is read: a model must be named by an architecture, a class
    or a checkpoint. Regexes are matched with RE2.
    """
    return to_json(check_text(registry, body.text, body.name, body.model))
