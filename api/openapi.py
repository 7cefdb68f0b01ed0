"""The description at ``/openapi.json``: what the framework makes of the routes, and what it cannot know."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from ..sandbox.tasks import ScanRequest

TAGS: list[dict[str, Any]] = [
    {"name": "targets", "description": "Which layers an adapter should go on"},
    {"name": "architectures", "description": "What is registered"},
    {"name": "mappings", "description": "Single revisions, and what became of them"},
    {"name": "submissions", "description": "Contribute, and review what others contribute"},
    {"name": "scan", "description": "Proposals for what is not registered"},
    {"name": "mirrors", "description": "Follow the registry, or take it whole"},
    {"name": "export", "description": "PEFT's own file, with what it lacks"},
    {"name": "tokens", "description": "Who may write"},
    {"name": "operations", "description": "Is it well, and where are things?"},
]

_REF = "#/components/schemas/{model}"

_HEADERS: dict[str, dict[str, Any]] = {
    "RateLimit": {
        "description": "What is left of each limit the request met (`r`), and in how many seconds all is again (`t`)",
        "schema": {"type": "string"},
        "example": '"address";r=599;t=60',
    },
    "RateLimit-Policy": {
        "description": "Each limit the request met: requests (`q`) in seconds (`w`)",
        "schema": {"type": "string"},
        "example": '"address";q=600;w=60',
    },
}

LAYERS_EXAMPLE: list[dict[str, Any]] = [
    {"path": f"model.layers.{block}.self_attn.{name}", "shape": [64, 64]}
    for block in range(2)
    for name in ("q_proj", "k_proj", "v_proj", "o_proj")
]

_SCAN_EXAMPLES: dict[str, Any] = {
    "config": {"summary": "A config.json", "value": {"config": {"model_type": "olmo2", "num_hidden_layers": 2}}},
    "layers": {"summary": "A list of layers", "value": {"layers": LAYERS_EXAMPLE, "name": "sent"}},
    "reference": {"summary": "A reference", "value": {"reference": "transformers:olmo2"}},
}


def operation_id(route: APIRoute) -> str:
    """Return the name of an operation, which clients are made from: the handler's, whatever its path is."""
    return route.name


def describe(app: FastAPI) -> None:
    """Let the application describe itself; made when it is first asked for."""

    def make() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(
                get_openapi(
                    title=app.title,
                    version=app.version,
                    description=app.description,
                    routes=app.routes,
                    tags=app.openapi_tags,
                    license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
                    servers=[{"url": "/"}],
                )
            )
        return app.openapi_schema

    app.openapi = make  # type: ignore[method-assign]  # the framework's own way to do this


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    components = document["components"]
    components["headers"] = _HEADERS
    _add_scan_request(document, components["schemas"])
    told = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
    for methods in document["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = _without_null(parameter["schema"])
            for answer in operation["responses"].values():
                answer["headers"] = {**answer.get("headers", {}), **told}
    return document


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter that may be left out: there is no null in a URL or a header."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return {**kinds[0], **{name: value for name, value in schema.items() if name != "anyOf"}}


def _add_scan_request(document: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Describe the one body that the framework does not read: the worker does."""
    schema = TypeAdapter(ScanRequest).json_schema(ref_template=_REF)
    schemas |= schema.pop("$defs")
    schemas["ScanRequest"] = schema
    content = document["paths"]["/v1/scan"]["post"]["requestBody"]["content"]
    content["application/json"]["examples"] = _SCAN_EXAMPLES
