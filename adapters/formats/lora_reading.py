"""Read the factors of a file by the layers of the models it is for."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ...errors import LoradarError
from ..config import LoraConfig
from ..injection.plan import strengths
from ..peft_forms import config_from_peft
from .joining import BIAS, FIRST, MAGNITUDE, SECOND, Factor, split, swap
from .names import Component, Twin

CONFIGS = "lora_adapter_metadata"
"""Name in a file's metadata of the configurations: each field after the name of its component, as in diffusers."""
JOINED = "loradar_joined"
"""Name in a file's metadata of how layers are joined, where that does not follow from the factors."""
MOST_METADATA = 1 << 20
SIDES = 2
"""Dimensions that factors have at least."""

_ENDINGS = (
    (
        r"\.lora_A(?:\.default)?\.weight|\.lora_down\.weight|[._]lora\.down\.weight|\.lora_linear_layer\.down\.weight",
        FIRST,
    ),
    (r"\.lora_B(?:\.default)?\.weight|\.lora_up\.weight|[._]lora\.up\.weight|\.lora_linear_layer\.up\.weight", SECOND),
    (r"\.dora_scale|\.lora_magnitude_vector(?:\.default)?(?:\.weight)?", MAGNITUDE),
    (r"\.lora_(?:B|up)\.bias", BIAS),
    (r"\.alpha", "alpha"),
)
ENDINGS = tuple((re.compile(f"(.+?)(?:{pattern})"), name) for pattern, name in _ENDINGS)


@dataclass
class Lora:
    """The factors of a file.

    Attributes:
        factors: Those of each layer, by component and path.
        configs: The configuration of each component, as far as it is known.
        unknown: Names that no layer has, each with why.
    """

    factors: dict[str, dict[str, Factor]] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)


@dataclass
class _Group:
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    alpha: float | None = None

    def take(self, name: str, tensor: torch.Tensor) -> bool:
        """Add a tensor; return whether it is the first of its name, and alpha a number."""
        if name != "alpha":
            return self.tensors.setdefault(name, tensor) is tensor
        if self.alpha is not None or tensor.numel() != 1 or not tensor.float().isfinite().all():
            return False
        self.alpha = float(tensor.reshape(-1)[0])
        return True

    def explain_fault(self) -> str:
        """Return why no update follows from the tensors; empty if one does."""
        first, second = self.tensors.get(FIRST), self.tensors.get(SECOND)
        if first is None or second is None:
            return "one factor of two is missing"
        if min(first.dim(), second.dim()) < SIDES or not first.numel() or first.shape[0] != second.shape[1]:
            return f"its factors have the shapes {[*first.shape]} and {[*second.shape]}, of which no update follows"
        return ""


def read_lora(
    tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], components: Mapping[str, Component]
) -> Lora:
    """Return the factors of a file of diffusers, kohya or ComfyUI.

    Args:
        tensors: Its tensors, by key.
        metadata: Its metadata.
        components: The models that it may be for.
    """
    found = Lora(configs=_read_configs(metadata, components))
    joined = _read_json(metadata.get(JOINED))
    for (component, twin), group in _group(tensors, components, found.unknown).items():
        if fault := group.explain_fault():
            found.unknown[twin.original] = fault
            continue
        parts = _take_apart(twin, group, components[component], found.configs.get(component), joined)
        found.factors.setdefault(component, {}).update(parts)
    return found


def _group(
    tensors: Mapping[str, torch.Tensor], components: Mapping[str, Component], unknown: dict[str, str]
) -> dict[tuple[str, Twin], _Group]:
    """Return the tensors by the component and the layer of their names; names without one layer go to ``unknown``."""
    groups: dict[tuple[str, Twin], _Group] = defaultdict(_Group)
    for key, tensor in tensors.items():
        stem, name = _split_key(key)
        places = [(part.name, twin) for part in components.values() for twin in part.find(stem)] if name else []
        if len(places) != 1:
            unknown[key] = _explain(name, places, components)
        elif not groups[places[0]].take(name, tensor):
            unknown[key] = f"{places[0][1].original} is there twice, or alpha is no number"
    return groups


def _split_key(key: str) -> tuple[str, str]:
    """Return the name of a layer in a key, and the name of the tensor in PEFT's files; both empty if it is none."""
    return next(((match[1], name) for find, name in ENDINGS if (match := find.fullmatch(key))), ("", ""))


def _explain(name: str, places: list[tuple[str, Twin]], components: Mapping[str, Component]) -> str:
    if not name:
        return "it is no factor of LoRA (LoHa, LoKr, LoCon's third factor and weights in full have no counterpart)"
    if places:
        said = " or ".join(sorted(f"{twin.original} of {component}" for component, twin in places)[:4])
        return f"it may be {said}"
    return f"no layer of {' and '.join(components)} has this name"


def _take_apart(
    twin: Twin, group: _Group, component: Component, config: Mapping[str, Any] | None, joined: Mapping[str, Any]
) -> Iterable[tuple[str, Factor]]:
    """Yield the factors of each layer of the model that a layer of the file stands for."""
    layers = [component.layers[path] for path in twin.parts]
    tensors = {name: _shape_as_peft(name, tensor, len(layers[0].shape)) for name, tensor in group.tensors.items()}
    rank = float(tensors[FIRST].shape[0])
    alpha = group.alpha if group.alpha is not None else _read_alpha(config, twin.parts[0], rank)
    factor = Factor(tensors, alpha)
    if twin.is_swapped:
        factor = swap(factor)
    rows = [layer.out_features or 0 for layer in layers]
    if len(rows) == 1 or sum(rows) != factor.rows:  # of other widths: left whole, to be found out
        return [(twin.parts[0], factor)]
    how = joined.get(f"{component.name}.{twin.original}")
    parts = split(factor, rows, how if isinstance(how, str) else None)
    return [(path, part) for path, part in zip(twin.parts, parts, strict=True) if part is not None]


def _shape_as_peft(name: str, tensor: torch.Tensor, dimensions: int) -> torch.Tensor:
    """Return a tensor with the sides that PEFT's has."""
    if name == MAGNITUDE and tensor.dim() > 1 and tensor.shape[0] == tensor.numel():
        return tensor.reshape(-1) if dimensions == 2 else tensor.reshape(1, -1, *[1] * (dimensions - 2))  # noqa: PLR2004
    return tensor


def _read_alpha(config: Mapping[str, Any] | None, path: str, rank: float) -> float:
    """Return alpha where a file has none for a layer: that of its configuration, else the rank, which scales by 1."""
    if not config:
        return rank
    try:
        known = config_from_peft(config)
    except LoradarError:
        return rank
    return strengths(known, [path])[0][2] * rank if isinstance(known, LoraConfig) else rank


def _read_configs(metadata: Mapping[str, str], components: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the configuration of each component that a file's metadata holds."""
    stated = _read_json(metadata.get(CONFIGS))
    found = {
        name: {key.removeprefix(f"{name}."): value for key, value in stated.items() if key.startswith(f"{name}.")}
        for name in components
    }
    return {name: config for name, config in found.items() if config}


def _read_json(text: str | None) -> dict[str, Any]:
    if text is None or len(text) > MOST_METADATA:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
