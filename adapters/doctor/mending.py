"""Write the mended copy of an adapter: names of the model, targets that select exactly its layers, its own ranks."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from ...domain.patterns import name_targets
from ...errors import InvalidConfig
from ...weights.diagnoses import Finding
from ..config import AdapterConfig, LoraConfig
from ..files.checkpoint import write
from ..injection.apply import PREFIX
from ..injection.match import matched
from ..injection.plan import strengths
from .experts import Joined, join_experts
from .findings import Case
from .stored import Factors, load_tensors

KEPT = ("zero", "alpha")
"""Errors of values that a copy may have too."""
REPLACED = ("layers_to_transform", "layers_pattern", "exclude_modules")
"""Fields that narrow targets, of which a mended copy has exact ones."""


def write_mended(case: Case, folder: Path, findings: Iterable[Finding]) -> None:
    """Write a mended copy into a folder.

    Raises:
        InvalidConfig: If the folder is that of the adapter, a fault cannot be mended, or the layers of the model are
            not known one by one.
    """
    name = str(case.adapter.file)
    if folder.resolve() == case.adapter.file.parent.resolve():
        raise InvalidConfig("--fix would write over the adapter itself: give another folder.", folder=str(folder))
    for finding in findings:
        if finding.level == "error" and not finding.is_mended and finding.code not in KEPT:
            raise InvalidConfig(f"{name} cannot be mended: {finding.message} {finding.way_out}", code=finding.code)
    if case.base is None or case.base.scan is None or case.config is None:
        message = f"{name} cannot be mended without the layers of its model, one by one."
        raise InvalidConfig(f"{message} Give the folder or the repo of the base: --model.", adapter=name)
    tensors = load_tensors(case.adapter)
    joined = join_experts(case, case.config, tensors) if isinstance(case.config, LoraConfig) else []
    mended = _mend_keys(case, tensors) | _list_joined(joined)
    write(folder, _mend_config(case, case.config) | _select_joined(case, case.config, joined), mended, as_pickle=False)


def _list_joined(joined: Sequence[Joined]) -> dict[str, torch.Tensor]:
    """Return the joined factors under the keys of PEFT's files: of two parameters of a module, the first is inside."""
    left = Counter(one.path.rpartition(".")[0] for one in joined)
    found: dict[str, torch.Tensor] = {}
    for one in joined:
        module = one.path.rpartition(".")[0]
        left[module] -= 1
        start = f"{PREFIX}{module}{'.base_layer' * left[module]}"
        found |= {f"{start}.lora_A.weight": one.first, f"{start}.lora_B.weight": one.second}
    return found


def _select_joined(case: Case, config: AdapterConfig, joined: Sequence[Joined]) -> dict[str, Any]:
    """Return the fields that select the parameters of joined experts, with their ranks and alphas."""
    if not joined or not isinstance(config, LoraConfig):
        return {}
    fields = _mend_config(case, config)
    ranks = {one.path: one.rank for one in joined if one.rank != fields["r"]}
    alphas = {one.path: one.alpha for one in joined if one.alpha != config.lora_alpha}
    return {
        "target_parameters": [one.path for one in joined],
        "rank_pattern": fields["rank_pattern"] | ranks,
        "alpha_pattern": fields["alpha_pattern"] | alphas,
        "lora_dropout": 0.0,  # neither PEFT nor loradar drops inputs of parameters
    }


def _mend_keys(case: Case, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of the adapter under the keys of PEFT's files for the model."""
    mended = {f"{PREFIX}{plain}": tensors[key] for plain, key in case.adapter.saved.items()}
    for factors in case.adapter.factors.values():
        if case.is_fused(factors):
            continue
        old, new = factors.path, case.path_of(factors)
        location = factors.location if new == old else f"{new}{factors.location.removeprefix(old)}"
        mended |= {f"{PREFIX}{location}.{name}": tensors[key] for name, key in factors.keys.items()}
    return mended


def _mend_config(case: Case, config: AdapterConfig) -> dict[str, Any]:
    """Return the content of the configuration, with targets that select exactly the layers that have factors."""
    assert case.base is not None and case.base.scan is not None  # noqa: S101, PT018
    data = dict(case.adapter.config)
    layers = {case.path_of(factors): factors for factors, _ in case.list_landed()}
    own = case.base.layers
    modules = [path for path in layers if path in own and own[path].kind != "expert_parameter"]
    if not config.spec.target_parameters:
        data |= {"target_modules": _as_json(name_targets(modules, case.base.scan.module_paths)) if modules else []}
        data |= {field: None for field in REPLACED if field in data}
    if isinstance(config, LoraConfig):
        data |= _mend_strength(case, config, layers)
    if data.get("feedforward_modules"):
        data["feedforward_modules"] = _mend_feedforward(case, config, layers)
    return data


def _mend_strength(case: Case, config: LoraConfig, layers: dict[str, Factors]) -> dict[str, Any]:
    """Return the fields of rank and alpha: the rank of the factors, and the alpha that the configuration states."""
    own = {path: strengths(config, [factors.path])[0] for path, factors in layers.items()}
    known = case.base.layers if case.base else {}
    plain = [path for path in layers if path in known and known[path].kind != "expert_parameter"]
    ranks = {path: layers[path].ranks[0] if layers[path].ranks else own[path][0] for path in plain}
    alphas = {path: own[path][1] for path in plain}
    if not ranks:
        return {"r": config.r, "rank_pattern": {}, "alpha_pattern": {}}
    rank = config.r if config.r in ranks.values() else Counter(ranks.values()).most_common(1)[0][0]
    return {
        "r": rank,
        "rank_pattern": {path: each for path, each in ranks.items() if each != rank},
        "alpha_pattern": {path: each for path, each in alphas.items() if each != config.lora_alpha},
    }


def _mend_feedforward(case: Case, config: AdapterConfig, layers: dict[str, Factors]) -> Any:
    """Return the targets of IA3 whose input is scaled, in the names of the model."""
    old = matched([factors.path for factors in layers.values()], config.spec.feedforward_modules or ())
    wanted = [path for path, factors in layers.items() if factors.path in old]
    assert case.base is not None and case.base.scan is not None  # noqa: S101, PT018
    return _as_json(name_targets(wanted, case.base.scan.module_paths))


def _as_json(targets: Any) -> Any:
    return targets if isinstance(targets, str) else [*targets]
