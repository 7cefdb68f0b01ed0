"""Read and write the LoRA files of diffusers, kohya and ComfyUI by the layers of the model.

Others may import: ``detect_format`` and ``Format`` (who wrote a file), ``find_components`` (the models of a pipeline),
which gives each ``Component``; ``find_named`` (the architecture that a text names); ``read_lora``, which gives a
``Lora`` of ``Factor`` records; ``write_lora``.
"""

from .detection import Format, detect_format
from .joining import Factor
from .lora_reading import Lora, read_lora
from .names import Component
from .pipeline import find_components, find_named
from .writing import Target, write_lora

__all__ = [
    "Component",
    "Factor",
    "Format",
    "Lora",
    "Target",
    "detect_format",
    "find_components",
    "find_named",
    "read_lora",
    "write_lora",
]
