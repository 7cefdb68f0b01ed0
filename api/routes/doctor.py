"""``POST /v1/doctor``: examine a saved adapter that is sent."""

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from ...domain.mappings import ArchitectureDetail
from ...errors import InvalidReference, UnknownArchitecture
from ...references import Reference
from ...references.resolver import resolve
from ...registry import Registry
from ...validation.bodies import AdapterBody, parse_body
from ...weights import identify
from ...weights.diagnoses import Diagnosis
from ..errors import error_responses
from ..requests import JSON, require_json

if TYPE_CHECKING:
    from ..dependencies import LazyRegistry
    from ..workers import Workers

router = APIRouter(prefix="/v1", tags=["doctor"])

FETCH = "loradar.sandbox.tasks:fetch_for_others"
EXAMINE = "loradar.adapters.doctor.sent:examine_sent"
"""Named, not imported: they import torch, in the worker."""

LIBRARIES = ("transformers", "timm", "diffusers")
NO_MODEL = "no base model is known, so no names and shapes were compared: send 'model'"


@router.post(
    "/doctor",
    summary="Examine an adapter",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": {"$ref": "#/components/schemas/AdapterBody"}}},
        }
    },
    responses={
        200: {"model": Diagnosis, "description": "What `loradar doctor --json` prints"},
        **error_responses(400, 404, 413, 415, 501, 502),
    },
)
async def examine_adapter(request: Request) -> Response:
    """Examine a saved adapter beside its base model, by its configuration and header, or its whole file.

    Nothing is stored, no weight of the base model is read, and no code that a repo or a configuration names is loaded.
    The examination runs in a worker process within limits of time and memory.
    """
    require_json(request)
    request.app.state.limiter.take("scan", request.state.address, request.state.limits_applied)
    body = await request.body()
    with request.app.state.metrics.scanning("doctor"):
        found: bytes = await run_in_threadpool(_examine, request.app.state.workers, request.app.state.registry, body)
    return Response(found, media_type=JSON, headers={"Cache-Control": "no-store"})


def _examine(workers: "Workers", lazy: "LazyRegistry", body: bytes) -> bytes:
    """Return the JSON of a diagnosis; the registry is read here, because a worker has no access to it."""
    sandbox = workers.get_scans()
    sent = parse_body(AdapterBody, body, "Send 'header' or 'file', with 'config' and 'model'.").model_dump()
    named = sent["config"].get("base_model_name_or_path") if sent["model"] is None else sent["model"]
    config = named if isinstance(named, Mapping) else None
    if isinstance(sent["model"], str) and named.startswith("hub:"):
        config = sandbox.run(FETCH, named)
    registry = lazy.get()
    if config is not None:
        architecture = identify(config)
        known = _get_registered(registry, architecture.library, architecture.name)
    else:
        known = _find_registered(registry, named, is_given=sent["model"] is not None)
    note = NO_MODEL if known is None else ""
    return sandbox.run(EXAMINE, sent, config, known, note)


def _find_registered(registry: Registry, named: Any, *, is_given: bool) -> ArchitectureDetail | None:
    """Return the registered architecture that a text stands for; one that the adapter alone names may be unknown.

    Raises:
        InvalidReference: If the sender gave a text that stands for none.
    """
    first = None
    if isinstance(named, str) and named:
        with suppress(InvalidReference):
            first = next((one for one in resolve(named) if not one.is_guess), None)
    if first is not None:
        reference = Reference.parse(first.reference)
        return _get_registered(registry, reference.scheme, reference.registered_name)
    if is_given:
        message = f"{named[:200]!r} is no model that is known here. Send the content of its config.json, or a name"
        raise InvalidReference(f"{message} such as 'llama' or 'hub:org/repo'.", reference=named[:200])
    return None


def _get_registered(registry: Registry, library: str, name: str) -> ArchitectureDetail | None:
    if library in LIBRARIES:
        with suppress(UnknownArchitecture):
            return registry.get_architecture(library, name)
    return None
