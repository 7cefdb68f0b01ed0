"""``/submissions/new``: the form for a mapping, with the layers that each of its names matches."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from secrets import token_hex
from typing import Any, get_args

from starlette.responses import Response

from ....domain.methods import UNTARGETED, list_methods
from ....domain.submissions import Statement
from ....domain.vocabulary import PRESETS, Library
from ....errors import InvalidRequest, InvalidStatement, LoradarError
from ....validation.statements import parse_statements
from ....validation.text import explain_invalid_target, parse_json
from ...routes.submissions import submit
from ..rendering import PageRouter, fresh_page
from .visitors import CheckedFields, Fields, Visit, Visiting, go_to

PLAIN = ("library", "name", "peft_type", "preset", "rationale")
NAMES = ("target_modules", "exclude_modules", "modules_to_save", "target_parameters", "feedforward_modules")
"""Fields of names; the regexes among them are told apart by their characters."""

LONGEST_SIZE = 20
"""Digits of a size that are read: more are beyond every bound all the same."""

EMPTY = {"library": "transformers", "peft_type": "LORA", "preset": "default"}
METHODS = tuple(method.name for method in list_methods() if method.family not in UNTARGETED)

_SHAPE = re.compile(r"[\[(]?[0-9]+(?:[x,][0-9]+)*,?[\])]?")
"""Shape of a weight without spaces: ``11008x4096``, ``[11008,4096]``."""

router = PageRouter()


@router.get("/submissions/new")
def show_form(visit: Visiting) -> Response:
    """Return the form; the query may fill it in, as from the page of an architecture."""
    query = visit.request.query_params
    return _show(visit, EMPTY | {name: query[name] for name in (*PLAIN, *NAMES) if name in query})


@router.post("/submissions/preview")
def preview_form(visit: Visiting, fields: Fields) -> Response:
    """Return the form as it was sent, with its preview; nothing is stored, so no session is needed."""
    return _show(visit, fields)


@router.post("/submissions/new")
def submit_form(visit: Visiting, fields: CheckedFields) -> Response:
    """Submit the mapping of the form, and go to the submission."""
    try:
        made = submit(visit.request, visit.registry, visit.actor, state(fields), visit.key_of(fields))
    except LoradarError as error:
        visit.note(error)
        return _show(visit, fields, error)
    return go_to(visit.request, "/submissions", made.id)


def _show(visit: Visit, fields: Mapping[str, str], problem: LoradarError | None = None) -> Response:
    preview = None
    if fields.get("name", "").strip() and (fields.get("target_modules") or fields.get("target_parameters")):
        try:
            preview = visit.registry.submissions.preview(state(fields))
        except LoradarError as error:
            problem = problem or error
    return fresh_page(
        visit.request,
        "people/contribute.html",
        status_code=HTTPStatus(problem.status) if problem else HTTPStatus.OK,
        visitor=visit.visitor,
        fields={name: fields.get(name, "") for name in (*PLAIN, *NAMES, "layers")},
        preview=preview,
        problem=problem.message if problem else None,
        bad_field=str(problem.details.get("field", "")).partition(".")[0] if problem else "",
        libraries=get_args(Library),
        methods=METHODS,
        presets=PRESETS,
        key=token_hex(16),
    )


def state(fields: Mapping[str, str]) -> Statement:
    """Return the statement of a form.

    Raises:
        InvalidStatement: Naming the field and a valid value.
    """
    body: dict[str, Any] = {name: text for name in PLAIN if (text := fields.get(name, "").strip())}
    body |= {name: targets for name in NAMES if (targets := split_names(fields.get(name, "")))}
    layers = fields.get("layers", "").strip()
    if layers:
        body["layers"] = parse_layers(layers)
    (statement,) = parse_statements({"name": "", **body}, source="The form")
    return statement


def split_names(text: str) -> list[str] | str:
    """Return the names of a field, or its regex: one line with a character that no name has."""
    text = text.strip()
    if "\n" not in text and explain_invalid_target(text) and re.search(r"[\\*+?|()\[\]{}^$]", text):
        return text
    return re.split(r"[\s,]+", text.strip(", \n")) if text else []


def parse_layers(text: str) -> list[Any]:
    """Return the layers of a field: a JSON list, or one weight in a line with its shape.

    Raises:
        InvalidStatement: Naming the first line that is neither.
    """
    if text.startswith("["):
        try:
            found: list[Any] = parse_json(text.encode())
        except InvalidRequest as error:
            message = f"The layers: {error.message} Give a list of objects with 'path' and 'shape'."
            raise InvalidStatement(message, field="layers") from None
        return found
    layers = []
    for line in filter(None, map(str.strip, text.split("\n"))):
        path, *rest = line.split()
        shape = "".join(rest)
        if not _SHAPE.fullmatch(shape):
            message = f"Layer {line[:100]!r} has no shape. Give one weight a line, as in 'layers.0.mlp.up 512x128'."
            raise InvalidStatement(message, field="layers")
        sizes = [int(size[:LONGEST_SIZE]) for size in re.findall("[0-9]+", shape)]
        layers.append({"path": path.removesuffix(".weight"), "shape": sizes})
    return layers
