"""The diagnosis of a saved adapter, as it is printed and sent."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..domain.serving import Served
from ..schema import Config, schema_config

Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault of an adapter."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    code: str
    """Kind of the fault, for programs: ``names``, ``fused``, ``wrappers``, ``unknown-layers``, ``shapes``,
    ``incomplete``, ``rank``, ``alpha``, ``targets``, ``missing-layers``, ``zero``, ``values``, ``format``, ``config``
    or ``saved``."""
    level: Level
    """``error`` if the adapter does not load, or not as it was trained; else ``warning``."""
    message: str
    """The fault, with the layers and the values."""
    way_out: str
    """How to mend it."""
    is_mended: bool = False
    """Whether ``--fix`` mends it."""


_EXAMPLE = Finding(
    code="names",
    level="error",
    message="12 layers vit.encoder.layer.*.attention.attention.query are vit.layers.*.attention.q_proj in this model.",
    way_out="loradar doctor ADAPTER --fix OUT writes it with these names.",
    is_mended=True,
)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The diagnosis of an adapter."""

    __pydantic_config__: ClassVar[Config] = schema_config(
        lambda: (
            Diagnosis(
                adapter="my-adapter",
                format="peft",
                base="transformers:vit",
                note="",
                layers=12,
                landed=12,
                towers={"vision": 12},
                renames={"vit.encoder.layer.*.attention.attention.query": "vit.layers.*.attention.q_proj"},
                findings=(_EXAMPLE,),
            ),
        )
    )

    adapter: str
    """The adapter."""
    format: str
    """``peft``, ``unsloth`` (PEFT's with its mark), ``diffusers``, ``kohya``, ``comfyui``, ``gguf`` or ``unknown``."""
    base: str | None
    """The model it was compared with; null if it is not known."""
    note: str
    """What could not be compared; empty if everything was."""
    layers: int
    """Layers that the file has factors for."""
    landed: int
    """Those that the model has, under their own or another name."""
    towers: dict[str, int]
    """Layers by tower of the model."""
    renames: dict[str, str]
    """Path patterns in the model by those in the file, where they differ."""
    findings: tuple[Finding, ...]
    """The faults, errors first."""
    served: tuple[Served, ...] = ()
    """What vLLM, SGLang and llama.cpp would do with it; empty if the class of its model is not known."""

    @property
    def is_sound(self) -> bool:
        """Whether no error was found."""
        return all(finding.level != "error" for finding in self.findings)
