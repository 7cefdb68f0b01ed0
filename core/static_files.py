"""The layout of a registry that is exported as static JSON files, for who writes them and who reads them.

``v1/targets/NAME`` and ``v1/architectures/LIBRARY/NAME`` are the responses of the REST service at these paths, without
a query. What a query would choose is in ``v1/answers/LIBRARY/NAME.json``: all methods and presets. ``v1/static.json``
is the index.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from .domain.mappings import Mapping as Answer
from .schema import from_json, to_json

FORMAT = 1
INDEX = "v1/static.json"


@dataclass(frozen=True, slots=True)
class StaticIndex:
    """The index of an export.

    Attributes:
        loradar: Version of loradar that wrote it.
        serial: Serial of the registry.
        architectures: References, such as ``timm:resnet50``, sorted.
        format: Version of the layout.
    """

    loradar: str
    serial: int
    architectures: tuple[str, ...]
    format: int = FORMAT

    def __post_init__(self) -> None:
        """Reject other layouts."""
        if self.format != FORMAT:
            message = f"format {self.format!r} of static files, not {FORMAT}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class StaticAnswers:
    """Every answer for one architecture, in a compact form.

    Attributes:
        shared: The fields in JSON that most answers have alike.
        answers: The other fields of each answer.
    """

    shared: dict[str, Any]
    answers: tuple[dict[str, Any], ...]

    @classmethod
    def pack(cls, answers: Iterable[Answer]) -> "StaticAnswers":
        """Return answers in the compact form; the fields of the first are shared."""
        rows = [to_json(answer) for answer in answers]
        shared = rows[0] if rows else {}
        return cls(shared, tuple({k: v for k, v in row.items() if k not in shared or v != shared[k]} for row in rows))

    def find(self, peft_type: str, preset: str) -> Answer | None:
        """Return the answer for a method and a preset, or ``None``."""
        rows: Iterable[Mapping[str, Any]] = ({**self.shared, **row} for row in self.answers)
        row = next((one for one in rows if (one["peft_type"], one["preset"]) == (peft_type, preset)), None)
        return from_json(Answer, row) if row else None

    def list_choices(self) -> list[str]:
        """Return the methods and presets that have an answer, as ``LORA/default``."""
        rows = ({**self.shared, **row} for row in self.answers)
        return [f"{row['peft_type']}/{row['preset']}" for row in rows]


def answers_path(library: str, name: str) -> str:
    """Return the path of the answers for an architecture, as a URL has it."""
    return f"v1/answers/{quote(library, safe='')}/{quote(name, safe='')}.json"
