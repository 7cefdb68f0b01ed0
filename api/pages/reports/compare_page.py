"""``/compare``: two architectures, two presets of one, or two revisions, side by side."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Query, Request
from starlette.responses import Response

from ....domain.layers import Slot
from ....domain.mappings import Mapping
from ....domain.methods import TARGETED, list_methods
from ....domain.reports.side_by_side import SideBySide, SlotPair
from ....domain.vocabulary import PRESETS
from ....errors import LoradarError
from ....registry import Wanted, put_side_by_side
from ...dependencies import NAME_LENGTH, OpenRegistry
from ..rendering import PageRouter, fresh_page, page
from .queries import tidy

EXAMPLES = (
    ("llama and Qwen3 MoE", {"a": "llama", "b": "qwen3_moe"}),
    ("llama: PEFT's default and all that is recommended", {"a": "llama", "a_preset": "default", "b": "llama"}),
    ("two vision transformers", {"a": "vit", "b": "timm:vit_base_patch16_224"}),
)
DIFFERENCES = {
    "missing": "only here",
    "name": "other name",
    "kind": "other kind",
    "count": "other number",
    "size": "other size",
    "target": "not adapted alike",
}

router = PageRouter()

Reference = Annotated[str, Query(max_length=NAME_LENGTH)]
Word = Annotated[str, Query(pattern=r"^[A-Za-z0-9_-]*$", max_length=64)]


@dataclass(frozen=True, slots=True)
class Row:
    """Slots that differ in numbers within their names alone, such as those of 128 experts, as one row of the table.

    Attributes:
        pair: The first of them.
        times: Their number.
    """

    pair: SlotPair
    times: int = 1

    @property
    def is_adapted(self) -> bool:
        """Whether one of the mappings matches a layer of it."""
        return bool(self.pair.left_adapted or self.pair.right_adapted)

    def list_sides(self) -> list[tuple[Slot | None, int]]:
        """Return the slots of both sides, each with the number of its layers that are adapted."""
        return [(self.pair.left, self.pair.left_adapted), (self.pair.right, self.pair.right_adapted)]


@router.page("/compare", twin="/v1/compare")
def show_comparison(  # noqa: PLR0913 - both sides
    request: Request,
    registry: OpenRegistry,
    *,
    a: Reference = "",
    b: Reference = "",
    a_preset: Word = "",
    b_preset: Word = "",
    peft_type: Word = "",
) -> Response:
    """Return the page with both sides, or with the form alone until both are given."""
    if tidied := tidy(request):
        return tidied
    chosen = {"a": a, "b": b, "a_preset": a_preset, "b_preset": b_preset, "peft_type": peft_type.upper() or TARGETED}
    context: dict[str, Any] = {"chosen": chosen, "found": None, "error": None, "examples": EXAMPLES}
    context |= {"presets": PRESETS, "methods": [each.name for each in list_methods()], "says": DIFFERENCES}
    context["at_fault"] = ""
    if not a or not b:
        return page(request, "reports/compare.html", **context, twin=None)
    wanted = [Wanted(text, preset or None, peft_type or TARGETED) for text, preset in ((a, a_preset), (b, b_preset))]
    try:
        found = put_side_by_side(registry, *wanted)
    except LoradarError as error:
        context |= {"error": error, "at_fault": _find_fault(registry, wanted[0])}
        return fresh_page(request, "reports/compare.html", status_code=HTTPStatus(error.status), **context)
    return page(request, "reports/compare.html", **context | _describe(found))


def _find_fault(registry: Any, left: Wanted) -> str:
    """Return the field whose mapping is not found."""
    try:
        left.find(registry)
    except LoradarError:
        return "a"
    return "b"


def _describe(found: SideBySide) -> dict[str, Any]:
    rows = fold(found.pairs)
    adapted = [row for row in rows if row.is_adapted]
    others = [row for row in rows if not row.is_adapted]
    return {
        "found": found,
        "adapted": adapted,
        "others": others,
        "others_differ": any(row.pair.differences for row in others),
        "labels": label(found.left, found.right),
    }


def label(left: Mapping, right: Mapping) -> tuple[str, str]:
    """Return the names of both sides, with the difference between them."""
    names = left.name, right.name
    if left.architecture != right.architecture:
        return names if names[0] != names[1] else (f"{left.library}:{names[0]}", f"{right.library}:{names[1]}")
    if (left.preset, left.peft_type) != (right.preset, right.peft_type):
        return left.preset, right.preset
    first, second = (f"{each.source.kind} revision {each.revision}" for each in (left, right))
    return (first, second) if first != second else ("left", "right")


def fold(pairs: Iterable[SlotPair]) -> list[Row]:
    """Return rows for pairs, one for all that differ in numbers within their names alone."""
    rows: dict[object, Row] = {}
    for pair in pairs:
        names = [side and re.sub(r"\d+", "#", side.pattern) for side in (pair.left, pair.right)]
        counts = [side and (side.count, side.per_rank, side.kind) for side in (pair.left, pair.right)]
        key = (pair.role, pair.tower, *names, *counts, pair.left_adapted, pair.right_adapted, pair.differences)
        row = rows.get(key)
        rows[key] = Row(pair) if row is None else replace(row, times=row.times + 1)
    return [*rows.values()]
