"""The names that the layers of a model have in the files of other tools, resolved against the model's own layers."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from ...data import read_facts
from ...domain.layers import Layer
from ...errors import InvalidConfig
from .unet_names import number_blocks

FACTS = "adapter_layouts.toml"
TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
DENOISERS = ("unet", "transformer")
NAMES = (*DENOISERS, *TEXT_ENCODERS)
"""Names of the models of a pipeline that adapters are made for."""


class Twin(NamedTuple):
    """One layer of a published checkpoint, with the layers that the model has for it.

    Attributes:
        original: Its name there.
        parts: The paths in the model: of several, each has a part of its rows.
        is_swapped: Whether the halves of its rows are the other way round.
    """

    original: str
    parts: tuple[str, ...]
    is_swapped: bool = False


@dataclass(frozen=True)
class Component:
    """A model of a pipeline.

    Attributes:
        name: Its name in the pipeline, such as ``unet``.
        class_name: Its class in diffusers, or its type in transformers.
        layers: Its layers that take factors, by path.
        layout: The entry of ``data/adapter_layouts.toml``; ``None`` for a model without one.
        prefixes: What its names begin with, by format; of several, which one it is depends on the pipeline.
    """

    name: str
    class_name: str
    layers: Mapping[str, Layer]
    layout: Mapping[str, Any] | None
    prefixes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def twins(self) -> tuple[Twin, ...]:
        """The layers that have a name in the files of other tools."""
        return tuple(_list_twins(self.layers, self.layout)) if self.layout else ()

    @cached_property
    def by_path(self) -> Mapping[str, Twin]:
        """The twin of each layer."""
        return {path: twin for twin in self.twins for path in twin.parts}

    @cached_property
    def _dotted(self) -> Mapping[str, frozenset[Twin]]:
        """The twins by every spelling of their name."""
        found: dict[str, set[Twin]] = defaultdict(set)
        for path in self.layers:
            single = Twin(self.by_path[path].original if path in self.by_path else path, (path,))
            twin = self.by_path.get(path, single)
            own = twin if len(twin.parts) == 1 and not twin.is_swapped else single
            for spelling in (path, *_spell_old(path)):
                found[spelling].add(own)
        for twin in self.twins:
            if twin.original not in self.layers:
                found[twin.original].add(twin)
        return {name: frozenset(twins) for name, twins in found.items()}

    @cached_property
    def _flat(self) -> Mapping[str, frozenset[Twin]]:
        """The twins by their name with ``_`` in place of each dot, as kohya writes it."""
        found: dict[str, set[Twin]] = defaultdict(set)
        for name, twins in self._dotted.items():
            found[name.replace(".", "_")] |= twins
        return {name: frozenset(twins) for name, twins in found.items()}

    def find(self, stem: str) -> frozenset[Twin]:
        """Return the layers that a name in a file stands for, prefix included; several if that is not clear."""
        found: set[Twin] = set()
        for prefix in {start for starts in self.prefixes.values() for start in starts}:
            if stem.startswith(prefix):
                names = self._flat if prefix.endswith("_") else self._dotted
                found |= names.get(stem.removeprefix(prefix), frozenset())
        return frozenset(found)

    def write_prefix(self, format_: str) -> str:
        """Return the prefix of the names of a format.

        Raises:
            InvalidConfig: If none does, or it depends on the pipeline.
        """
        starts = self.prefixes.get(format_, ())
        if len(starts) == 1:
            return starts[0]
        if starts:
            message = f"What {format_}'s names of a {self.class_name} begin with depends on its pipeline ("
            way_out = "give the folder or the repo of the pipeline: --model."
            raise InvalidConfig(f"{message}{', '.join(starts)}): {way_out}", component=self.name)
        message = f"{format_} has no names for the layers of {self.class_name}: no source for them is known."
        raise InvalidConfig(f"{message} Convert to peft or diffusers.", component=self.name)


def find_layout(class_name: str, layers: Mapping[str, Layer]) -> Mapping[str, Any] | None:
    """Return the entry of a model, by its class and, where that is of several families, by a layer."""
    for entry in read_facts(FACTS)["layout"]:
        layer = layers.get(entry.get("layer", ""))
        is_family = "layer" not in entry or (layer and entry.get("inputs", layer.in_features) == layer.in_features)
        if entry["class"] == class_name and is_family:
            return dict(entry)
    return None


def prefix_all(
    name: str, layout: Mapping[str, Any] | None, pipeline: Mapping[str, Any] | None
) -> dict[str, tuple[str, ...]]:
    """Return the prefix of the names of a component, by format.

    Args:
        name: The component.
        layout: Its entry.
        pipeline: The entry of the denoiser of its pipeline, if that is known.
    """
    found: dict[str, tuple[str, ...]] = {"diffusers": (f"{name}.",)}
    if name in DENOISERS:
        known = {"kohya": ("lora_unet_",), "comfyui": ("diffusion_model.",)}
        return found | {key: value for key, value in known.items() if layout and (key != "kohya" or "kohya" in layout)}
    if layout is None:
        return found
    pipelines = [pipeline] if pipeline else read_facts(FACTS)["layout"]
    texts = [text for entry in pipelines for key, text in entry.get("text", {}).items() if not pipeline or key == name]
    kohya = dict.fromkeys(f"{text['kohya']}_" for text in texts if "kohya" in text)
    comfyui = dict.fromkeys(f"text_encoders.{text['comfyui']}.transformer." for text in texts)
    return found | {key: tuple(value) for key, value in (("kohya", kohya), ("comfyui", comfyui)) if value}


def _list_twins(layers: Mapping[str, Layer], layout: Mapping[str, Any]) -> Iterator[Twin]:
    """Yield the twins of a model's layers, where all parts of one are there."""
    names, also = (layout.get(key, {}) for key in ("names", "also"))  # the last twin of a layer is the one written
    if layout.get("blocks") == "ldm":
        yield from (Twin(original, (path,)) for path, original in number_blocks(layers).items())
        return
    seen: set[str] = set()
    for original, parts in (*also.items(), *names.items()):
        templates = [parts] if isinstance(parts, str) else parts
        for indices, paths in _group_by_index(templates, layers).items():
            if len(paths) == len(templates):
                seen.update(paths if original in names else ())
                yield Twin(_fill(original, indices), tuple(paths), _is_swapped(original, layers[paths[0]], layout))
    if layout.get("others") == "same":
        start = layout.get("prefix", "")
        yield from (Twin(start + path.removeprefix(start), (path,)) for path in layers if path not in seen)


def _group_by_index(templates: Iterable[str], layers: Iterable[str]) -> dict[tuple[int, ...], list[str]]:
    """Return the layers that templates stand for, by the indices in their paths."""
    groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for template in templates:
        for path, indices in _match(template, layers):
            groups[indices].append(path)
    return groups


def _match(template: str, paths: Iterable[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    find: Callable[[str], Any] = re.compile(re.escape(template).replace(r"\*", r"(\d+)")).fullmatch
    for path in paths:
        if found := find(path):
            yield path, tuple(map(int, found.groups()))


def _fill(template: str, indices: Iterable[int]) -> str:
    left = [*map(str, indices)]
    return ".".join(left.pop(0) if part == "*" else part for part in template.split("."))


def _is_swapped(original: str, layer: Layer, layout: Mapping[str, Any]) -> bool:
    if original in layout.get("swapped", ()):
        return True
    is_twofold = layer.out_features == 2 * (layer.in_features or 0)
    return is_twofold and original in layout.get("swapped_if_twofold", ())


_OLD = (
    (".to_out.0", ".to_out"),
    (".self_attn.q_proj", ".self_attn.to_q"),
    (".self_attn.k_proj", ".self_attn.to_k"),
    (".self_attn.v_proj", ".self_attn.to_v"),
    (".self_attn.out_proj", ".self_attn.to_out"),
)
"""Ends of paths, and what diffusers wrote for them before it used PEFT (``utils/state_dict_utils.py``)."""


def _spell_old(path: str) -> Iterator[str]:
    """Yield the spellings of earlier versions of diffusers: of attention processors, and of text encoders."""
    forms = {path, *(f"{path.removesuffix(end)}{old}" for end, old in _OLD if path.endswith(end))}
    forms |= {f"text_model.{form}" for form in forms} | {form.removeprefix("text_model.") for form in forms}
    for form in forms:
        parent, _, leaf = form.rpartition(".to_")
        yield from (form, *([f"{parent}.processor.to_{leaf}"] if parent else []))
