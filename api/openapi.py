"""Complete the OpenAPI document that FastAPI generates from the routes."""

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from ..sandbox.tasks import ScanRequest
from ..validation.bodies import AdapterBody

TAGS: list[dict[str, Any]] = [
    {"name": "targets", "description": "Which layers an adapter should go on"},
    {"name": "architectures", "description": "Registered architectures"},
    {"name": "mappings", "description": "Mappings and their revisions"},
    {"name": "submissions", "description": "Submit mappings, and review the submissions of others"},
    {"name": "scan", "description": "Proposals for unregistered architectures"},
    {"name": "doctor", "description": "What is wrong with a saved adapter"},
    {"name": "check", "description": "Check training configurations"},
    {"name": "reports", "description": "What was compared, audited and measured"},
    {"name": "mirrors", "description": "Follow the registry's changes, or download it"},
    {"name": "export", "description": "PEFT's constants file, completed"},
    {"name": "tokens", "description": "Tokens for writes"},
    {"name": "operations", "description": "Health, metrics and an index"},
]

_REF = "#/components/schemas/{model}"

_HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {
        "description": "The id of the request in the service's log: that of the request's header, or a new one",
        "schema": {"type": "string"},
        "example": "3d7f917349ae0e68",
    },
    "RateLimit": {
        "description": "Remaining requests of each limit applied (`r`), and seconds until it is renewed (`t`)",
        "schema": {"type": "string"},
        "example": '"address";r=599;t=60',
    },
    "RateLimit-Policy": {
        "description": "Each limit applied: requests (`q`) per window in seconds (`w`)",
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


ADAPTER_EXAMPLE: dict[str, Any] = {
    "config": {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]},
    "header": {
        f"base_model.model.model.layers.0.self_attn.q_proj.lora_{name}.weight": {
            "dtype": "F32",
            "shape": shape,
            "data_offsets": [start, start + 1024],
        }
        for name, shape, start in (("A", [4, 64], 0), ("B", [64, 4], 1024))
    },
    "model": "transformers:llama",
}


def operation_id(route: APIRoute) -> str:
    """Return the name of an operation for generated clients: the handler's."""
    return route.name


class DescribedApp(FastAPI):
    """An application whose OpenAPI document is completed when it is made, on first use."""

    def openapi(self) -> dict[str, Any]:
        """Return the document."""
        if self.openapi_schema is not None:
            return self.openapi_schema
        document = super().openapi()
        self.openapi_schema = None  # an incomplete document must not be served
        components = document["components"]
        components["headers"] = _HEADERS
        # The worker reads the body of a scan, not the framework.
        schema = TypeAdapter(ScanRequest).json_schema(ref_template=_REF)
        components["schemas"] |= schema.pop("$defs")
        components["schemas"]["ScanRequest"] = schema
        components["schemas"]["AdapterBody"] = TypeAdapter(AdapterBody).json_schema(ref_template=_REF)
        content = document["paths"]["/v1/doctor"]["post"]["requestBody"]["content"]
        content["application/json"]["examples"] = {"header": {"summary": "A header", "value": ADAPTER_EXAMPLE}}
        content = document["paths"]["/v1/scan"]["post"]["requestBody"]["content"]
        content["application/json"]["examples"] = _SCAN_EXAMPLES
        limits = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
        for methods in document["paths"].values():
            for operation in methods.values():
                for parameter in operation.get("parameters", ()):
                    parameter["schema"] = _without_null(parameter["schema"])
                for response in operation["responses"].values():
                    response["headers"] = {**response.get("headers", {}), **limits}
        self.openapi_schema = document
        return document


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an optional parameter without null, which a URL or header cannot hold."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return {**kinds[0], **{name: value for name, value in schema.items() if name != "anyOf"}}
