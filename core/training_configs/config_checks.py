"""Describe the faults of the LoRA part of a training configuration."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..references import Understood
from ..schema import Config, schema_config

Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class ConfigFinding:
    """A fault of the LoRA part of a configuration."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    code: str
    """Kind of the fault, for programs: ``no-targets``, ``nothing``, ``renamed``, ``tower``, ``stray``, ``head``,
    ``router``, ``blocks``, ``experts``, ``tokens`` or ``saved``."""
    level: Level
    """``error`` if a target is without effect or the training fails or loses what it learns; else ``warning``."""
    line: int
    """Line in the file, from 1."""
    message: str
    """The fault, with the layers and the values."""
    way_out: str
    """How to mend it."""


@dataclass(frozen=True, slots=True)
class PartCheck:
    """The check of one LoRA part: of a file of YAML or JSON, a command, or a call."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    project: str
    """The project whose configuration it is: ``axolotl``, ``LLaMA-Factory``, ``ms-swift``, ``TRL``, ``Unsloth``,
    ``torchtune``, ``diffusers`` or ``PEFT``."""
    line: int
    """Line it starts on."""
    base: str | None
    """The model that it names."""
    reference: str | None
    """The architecture whose layers the targets were compared with; null if it is not known."""
    library_version: str | None
    """Version of the library that the layers are of."""
    understood: Understood | None
    """How the model was understood; null if it names the architecture exactly."""
    note: str
    """Why something could not be checked; empty if all was."""
    matched: int
    """Layers that the targets match."""
    towers: dict[str, int]
    """Of these, the number in each tower."""
    findings: tuple[ConfigFinding, ...]
    """The faults, errors first."""
    snippet: str | None
    """The targets as they would be right, in the format of the file; null without a fault that other targets mend."""


@dataclass(frozen=True, slots=True)
class ConfigCheck:
    """The check of a configuration."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (CHECK_EXAMPLE,))

    file: str
    """Name of the file."""
    parts: tuple[PartCheck, ...]
    """Its LoRA parts, in their order."""

    @property
    def is_sound(self) -> bool:
        """Whether no error was found."""
        return all(finding.level != "error" for part in self.parts for finding in part.findings)


CHECK_EXAMPLE: ConfigCheck = ConfigCheck(
    "qlora.yml",
    (
        PartCheck(
            project="axolotl",
            line=1,
            base="EleutherAI/pythia-1.4b-deduped",
            reference="transformers:gpt_neox",
            library_version="5.24.0",
            understood=None,
            note="",
            matched=0,
            towers={},
            findings=(
                ConfigFinding(
                    "nothing",
                    "error",
                    7,
                    "'q_proj' matches no layer of transformers:gpt_neox (5.24.0).",
                    "Layers of its kind there: query_key_value.",
                ),
            ),
            snippet="lora_target_modules:\n  - query_key_value",
        ),
    ),
)
