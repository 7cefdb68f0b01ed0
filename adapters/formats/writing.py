"""Write factors as the tensors and the metadata of a file of PEFT, diffusers, kohya or ComfyUI."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch

from ...domain.patterns import name_targets
from ...errors import InvalidConfig, LoradarError
from ..config import LoraConfig
from ..injection.apply import PREFIX
from ..injection.match import match
from ..injection.plan import strengths
from ..peft_forms import config_from_peft
from .joining import BIAS, FIRST, MAGNITUDE, SECOND, Factor, join, split, swap
from .lora_reading import CONFIGS, JOINED, Lora
from .names import DENOISERS, Component, Twin

Target = Literal["peft", "diffusers", "kohya", "comfyui"]

KOHYA = {FIRST: "lora_down.weight", SECOND: "lora_up.weight", MAGNITUDE: "dora_scale"}
COMFYUI = {FIRST: "lora_A.weight", SECOND: "lora_B.weight", MAGNITUDE: "dora_scale"}


def write_lora(
    lora: Lora, components: Mapping[str, Component], to: Target
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors and the metadata of one file with the factors of all components.

    Args:
        lora: The factors.
        components: Their models.
        to: The format; not PEFT's, which has one folder for each model.

    Raises:
        InvalidConfig: If the format has no counterpart of a layer or a tensor; names it.
    """
    configs = {name: complete_config(lora, components[name]) for name in lora.factors}
    stated = {f"{name}.{key}": value for name, config in configs.items() for key, value in config.items()}
    metadata = {"format": "pt", CONFIGS: json.dumps(stated, sort_keys=True)}
    if to == "diffusers":
        return {
            f"{name}.{_spell(components[name], path)}.{key}": tensor
            for name, factors in lora.factors.items()
            for path, factor in factors.items()
            for key, tensor in factor.tensors.items()
        }, metadata
    tensors, joined = _name_all(lora, components, to)
    if joined:
        metadata[JOINED] = json.dumps(joined, sort_keys=True)
    return tensors, metadata | (_describe_network(lora) if to == "kohya" else {})


def _name_all(
    lora: Lora, components: Mapping[str, Component], to: Target
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors of all layers under their keys, and how layers are joined where that does not follow."""
    tensors: dict[str, torch.Tensor] = {}
    joined: dict[str, str] = {}
    for name, factors in lora.factors.items():
        for twin, parts in _group(components[name], factors, to).items():
            factor, how = _put_together(components[name], twin, parts)
            joined |= {f"{name}.{twin.original}": how} if how else {}
            tensors |= _name_tensors(components[name], twin, factor, to)
    return tensors, joined


def _spell(component: Component, path: str) -> str:
    """Return the name of a layer in diffusers' files: of text encoders that with which all versions load."""
    twin = component.by_path.get(path)
    return twin.original if twin and component.name not in DENOISERS else path


def _group(component: Component, factors: Mapping[str, Factor], to: Target) -> dict[Twin, list[Factor | None]]:
    """Return the factors of the parts of each layer that the format has."""
    component.write_prefix(to)  # raises for a model without names there
    found: dict[Twin, list[Factor | None]] = {}
    for path, factor in factors.items():
        twin = component.by_path.get(path)
        if twin is None:
            message = f"{path} of {component.class_name} has no counterpart in the names of {to}'s files: leave it out"
            raise InvalidConfig(f"{message}, or convert to peft or diffusers.", layer=path)
        if to == "kohya" and component.layout and component.layout["kohya"] == "diffusers":
            twin = Twin(path, (path,))
        if BIAS in factor.tensors:
            message = f"{path} has a trained bias (lora_bias), which {to}'s format has no place for"
            raise InvalidConfig(f"{message}: convert to peft or diffusers.", layer=path)
        found.setdefault(twin, [None] * len(twin.parts))[twin.parts.index(path)] = factor
    return found


def _put_together(component: Component, twin: Twin, parts: list[Factor | None]) -> tuple[Factor, str]:
    """Return the factors of a layer, and how its parts are joined if that does not follow from them."""
    if len(parts) == 1:
        (factor,) = parts
        assert factor is not None  # noqa: S101 - a twin is there because of its factors
        return (swap(factor) if twin.is_swapped else factor), ""
    rows = [component.layers[path].out_features or 0 for path in twin.parts]
    factor, how = join(parts, rows, twin.original)
    again = split(factor, rows)
    is_plain = all(
        one is None if other is None else one is not None and one.equals(other)
        for one, other in zip(again, parts, strict=True)
    )
    return factor, "" if is_plain else how


def _name_tensors(component: Component, twin: Twin, factor: Factor, to: Target) -> dict[str, torch.Tensor]:
    """Return the tensors of a layer under their keys, alpha in the type of the factors if that holds it."""
    stem = component.write_prefix(to) + (twin.original.replace(".", "_") if to == "kohya" else twin.original)
    names = KOHYA if to == "kohya" else COMFYUI
    alpha = torch.tensor(factor.alpha, dtype=factor.tensors[FIRST].dtype)
    if float(alpha) != factor.alpha:
        alpha = torch.tensor(
            factor.alpha, dtype=torch.float64 if float(torch.tensor(factor.alpha)) != factor.alpha else torch.float32
        )
    found = {f"{stem}.{names[key]}": tensor for key, tensor in factor.tensors.items() if key != MAGNITUDE}
    if MAGNITUDE in factor.tensors:
        own = factor.tensors[MAGNITUDE]
        found[f"{stem}.{names[MAGNITUDE]}"] = own.reshape(-1, *[1] * (factor.tensors[FIRST].dim() - 1))
    return found | {f"{stem}.alpha": alpha}


def _describe_network(lora: Lora) -> dict[str, str]:
    """Return the metadata that sd-scripts writes for its network."""
    every = [factor for factors in lora.factors.values() for factor in factors.values()]
    (rank, alpha), _ = Counter((factor.rank, factor.alpha) for factor in every).most_common(1)[0]
    return {"ss_network_module": "networks.lora", "ss_network_dim": str(rank), "ss_network_alpha": f"{alpha:g}"}


def name_peft(factors: Mapping[str, Factor]) -> dict[str, torch.Tensor]:
    """Return the tensors of a model's factors under the keys of PEFT's files."""
    return {
        f"{PREFIX}{path}.{key}": tensor for path, factor in factors.items() for key, tensor in factor.tensors.items()
    }


def complete_config(lora: Lora, component: Component) -> dict[str, Any]:
    """Return the content of ``adapter_config.json``: the known fields, and targets, ranks and alphas by the factors."""
    factors = lora.factors[component.name]
    known = lora.configs.get(component.name, {})
    if known and _describes(known, factors, component.layers):
        return known
    pairs = Counter((factor.rank, factor.alpha) for factor in factors.values())
    (rank, alpha), _ = pairs.most_common(1)[0]
    config = LoraConfig(
        r=rank,
        lora_alpha=_as_number(alpha),
        target_modules=name_targets([*factors], [*_list_modules(component.layers)]),
        rank_pattern={path: one.rank for path, one in factors.items() if one.rank != rank},
        alpha_pattern={path: _as_number(one.alpha) for path, one in factors.items() if one.alpha != alpha},
        use_dora=any(MAGNITUDE in one.tensors for one in factors.values()),
        lora_bias=any(BIAS in one.tensors for one in factors.values()),
    )
    kept = {key: value for key, value in known.items() if key in ("lora_dropout", "base_model_name_or_path")}
    return replace(config).to_peft_dict() | kept


def _as_number(alpha: float) -> Any:
    return int(alpha) if alpha == int(alpha) else alpha


def _list_modules(paths: Iterable[str]) -> dict[str, None]:
    """Return the paths of layers, each after those of the modules around it."""
    found: dict[str, None] = {}
    for path in paths:
        parts = path.split(".")
        found |= dict.fromkeys(".".join(parts[:end]) for end in range(1, len(parts) + 1))
    return found


def _describes(config: Mapping[str, Any], factors: Mapping[str, Factor], layers: Mapping[str, Any]) -> bool:
    """Return whether a configuration selects exactly the layers with factors, and states their ranks and alphas."""
    try:
        own = config_from_peft(config)
        if not isinstance(own, LoraConfig):
            return False
        selected = {path for path in match([*_list_modules(layers)], own).paths if path in layers}
    except LoradarError:
        return False
    stated = strengths(own, [*factors])
    return selected == {*factors} and all(
        (rank, scaling * rank) == (factor.rank, factor.alpha)
        for (rank, _, scaling), factor in zip(stated, factors.values(), strict=True)
    )
