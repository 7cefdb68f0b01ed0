"""First factors from base weights: PEFT's own functions (0.21.2), run on stand-ins of its layers.

Most of them take a part out of the base weights, so that the model computes the same at first. The weights from before
are kept in main memory, and the first factors with them: both together say what an adapter learned.
"""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from ...errors import InvalidConfig, quoted
from ...extras import require
from ...warn import warn
from ..checks import CHANGING_THE_BASE, invalid
from ..config import AdapterConfig
from ..layers.base_layer import features_of, offload_device
from ..layers.dora import fill_magnitude
from ..layers.peft_variants import truncate_base
from ..layers.planned import PlannedAdapter
from ..layers.wrappers import Child, state_of
from .ambient import without_modes
from .host_model import Survey

KINDS = ("linear", "transposed_linear")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
REPEATABLE = ("pissa", "olora", "loftq", "kasa_config")
"""The initialisations that find the same again in the same weights, so that a file needs no more than their name."""
NOT_LOW_RANK = ("loftq", "kasa_config")
"""Those whose part of the weights is not the product of the first factors, so that no LoRA stands for it."""
PREPARED_BY = {"corda": ("preprocess_corda", "eigens"), "lora_ga": ("preprocess_loraga", "_peft_loraga_grad")}
"""PEFT's function that has to come first, and the attribute that it leaves on a layer."""
ONE = "adapter"


def check_beginning(survey: Survey, config: AdapterConfig, adapters: Iterable[PlannedAdapter]) -> None:
    """Reject layers that an initialisation of PEFT's is not made for.

    Raises:
        MissingExtra: If peft is not installed.
        InvalidConfig: Naming the layer, the reason and the way out.
    """
    require("peft", "peft")
    if config.initialisation == "loftq" and not (find_spec("bitsandbytes") and torch.accelerator.is_available()):
        lack = "quantises with bitsandbytes on a GPU, and one of both is missing here: use another initialisation."
        raise invalid("init_lora_weights", "loftq", lack)
    for planned in adapters:
        if config.initialisation == "orthogonal" and planned.r % 2:
            message = f"Orthogonal initialization requires the LoRA rank to be even, got {planned.r} instead"
            raise InvalidConfig(f"{message}, for {planned.path!r}: give an even one.", path=planned.path)
        if why := _find_obstacle(config, planned, survey.sites[planned.path].module):
            option = "kasa_config" if config.variant == "kasa_config" else "init_lora_weights"
            raise invalid(option, getattr(config, option), f"does not fit {planned.path!r}, {why}.")


def _find_obstacle(config: AdapterConfig, planned: PlannedAdapter, base: nn.Module) -> str | None:
    """Return why an initialisation does not fit a layer, with the way out."""
    how, weight = config.initialisation, base._parameters.get("weight")  # noqa: SLF001 - a computed one has other names
    leave_out = "leave it out of the targets"
    is_kasa = config.variant == "kasa_config"  # one singular value at least has to stay
    function, prepared = PREPARED_BY.get(str(how), ("", ""))
    rules = {
        f"which is no linear layer: {leave_out}": planned.kind not in KINDS or bool(planned.parameter),
        f"whose weight is not float32, float16 or bfloat16: {leave_out}": weight is None or weight.dtype not in DTYPES,
        "whose rank is above the size of its weight: give a smaller one": weight is not None
        and planned.r + is_kasa > min(weight.shape),
        f"which stores its weight transposed: {leave_out}": (how in ("olora", "loftq") or is_kasa)
        and planned.fan_in_fan_out,
        f"whose weight is shared and would change elsewhere too: {leave_out}": bool(config.base_changed_by)
        and planned.shares_weight,
        "whose weight was made under torch.inference_mode() and cannot be changed: make the model outside of it": bool(
            config.base_changed_by
        )
        and weight is not None
        and weight.is_inference(),
        "whose weight accelerate offloads: begin before the model is dispatched": offload_device(base) is not None,
        f"which peft's {function} has not prepared: call it on the model first": bool(prepared)
        and not hasattr(base, prepared),
    }
    return next((why for why, is_so in rules.items() if is_so), None)


@dataclass(slots=True)
class Beginnings:
    """The base weights that initialisations of a model's adapters changed, and the first factors of each.

    Attributes:
        changes: The initialisation, or the variant, by the adapter that it changed weights for.
        weights: The weights from before the first change, by path.
        factors: The first factors, by adapter and path: ``A`` and ``B``.
    """

    changes: dict[str, str] = field(default_factory=dict)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    factors: dict[str, dict[str, tuple[torch.Tensor, torch.Tensor]]] = field(default_factory=dict)

    @without_modes()
    @torch.no_grad()
    def begin(
        self,
        survey: Survey,
        name: str,
        config: AdapterConfig,
        parts: Iterable[tuple[PlannedAdapter, Mapping[str, Child]]],
        *,
        fill: bool,
    ) -> None:
        """Change the base weights as the initialisation of an adapter does; if that fails, they are as before all.

        Args:
            survey: The walk over the model.
            name: Name of the adapter.
            config: Its configuration.
            parts: Its plan and its factors on each layer.
            fill: Whether the factors get their first values; those of a file have theirs.
        """
        changed_by = config.base_changed_by
        if not config.begins_with_peft or not (fill or changed_by):
            return
        factors: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        if changed_by:
            self.changes[name], self.factors[name] = changed_by, factors
        try:
            for planned, children in parts:
                base: Any = survey.sites[planned.path].module
                if planned.tokens or base.weight.is_meta:
                    continue
                found, weight = _run(config, base, planned)
                if changed_by:
                    self.weights.setdefault(planned.path, base.weight.detach().to("cpu", copy=True))
                    base.weight.data.copy_(weight)
                if changed_by not in (None, *NOT_LOW_RANK):
                    factors[planned.path] = found[0].float().cpu(), found[1].float().cpu()
                _finish(base, planned, children, found if fill else None)
        except BaseException:
            self.restore(survey)
            raise

    def begin_again(
        self,
        survey: Survey,
        name: str,
        config: AdapterConfig,
        parts: Iterable[tuple[PlannedAdapter, Mapping[str, Child]]],
    ) -> None:
        """Let an adapter begin again: from the weights of before, if no other one changed them.

        Raises:
            InvalidConfig: If the weights were changed for another adapter too, and are not what it would find.
        """
        others = [other for other in self.changes if other != name]
        if name in self.changes and not others:
            self.restore(survey)
        elif config.base_changed_by and config.base_changed_by != "kasa_config":
            message = f"{name!r} cannot begin again by init_lora_weights={config.initialisation!r}: base weights were"
            raise InvalidConfig(f"{message} changed for {others[0]!r} too. Use a model of its own.", adapter_name=name)
        self.begin(survey, name, config, parts, fill=True)

    def restore(self, survey: Survey) -> None:
        """Give the base weights the values from before, bit for bit."""
        for path, weight in self.weights.items():
            survey.sites[path].module.weight.data.copy_(weight)  # type: ignore[operator]  # a parameter
        for known in (self.changes, self.weights, self.factors):
            known.clear()

    def describe(self) -> str:
        """Return which initialisations changed the base weights, and for which adapters; empty if none did."""
        by = (f"{_as_option(how)} of {name!r}" for name, how in self.changes.items())
        return " and ".join(by)

    def check_beside(self, name: str, config: AdapterConfig, others: Mapping[str, AdapterConfig]) -> None:
        """Reject an adapter that would find base weights which were changed for another one; warn if it shares them.

        Args:
            name: Name of the new adapter.
            config: Its configuration.
            others: The configurations of the others, by name.

        Raises:
            InvalidConfig: Naming the initialisations that do not fit together.
        """
        changed_by = {other: how for other, each in others.items() if (how := each.base_changed_by)} | self.changes
        how = config.base_changed_by
        if "kasa_config" in (how, *changed_by.values()):
            for other in others:
                if changed_by.get(other) != how:
                    message = "KaSA cannot be combined with adapters that don't use KaSA, since KaSA modifies the base"
                    message = f"{message} weights: {name!r} and {other!r} differ in it"
                    raise InvalidConfig(f"{message}. Use a model of its own.", adapter_name=name)
            return
        if how and changed_by:
            other, known = next(iter(changed_by.items()))
            message = f"{_as_option(how)} of {name!r} would find base weights that {_as_option(known)} of {other!r}"
            way_out = "give it a model of its own, or save one of both with path_initial_model_for_weight_conversion"
            raise InvalidConfig(f"{message} changed: {way_out} first.", adapter_name=name)
        if changed_by:
            message = f"{name!r} acts on base weights that {self.describe()} changed"
            warn(f"{message}: load its file beside that adapter alone.")
        elif how and others:
            message = f"{_as_option(how)} of {name!r} changes base weights, on which {quoted(others)} act too"
            warn(f"{message}: their files belong to the changed weights from here on, and their results change.")

    def write(
        self,
        name: str,
        state: Mapping[str, torch.Tensor],
        config: Mapping[str, Any],
        prefix: str,
        *,
        is_converted: bool,
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return an adapter's tensors and configuration as a file holds them.

        Args:
            name: Its name.
            state: Its tensors.
            config: Its configuration.
            prefix: The prefix of their keys.
            is_converted: Whether it becomes an ordinary LoRA on the former weights, though loading could change them.

        Raises:
            InvalidConfig: If the adapter has to be converted, and cannot be.
        """
        how = self.changes.get(name)
        if how and (is_converted or how not in REPEATABLE):
            return self.convert(name, state, config, prefix)
        if self.changes and not how:
            message = f"The file of {name!r} belongs to base weights that {self.describe()} changed"
            warn(f"{message}: load it beside that adapter alone.")
        written = str(config.get("init_lora_weights")).startswith(CHANGING_THE_BASE)
        is_named = bool(how) and how != "kasa_config"
        # The field may have been changed, and then says nothing.
        named = {"init_lora_weights": how if is_named else True} if is_named or written else {}
        return dict(state), {**config, **named}

    def convert(
        self, name: str, state: Mapping[str, torch.Tensor], config: Mapping[str, Any], prefix: str
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return an adapter's tensors and configuration as an ordinary LoRA of twice the rank on the former weights.

        Its update is ``B @ A`` minus that of the first factors (``subtract_mutated_init``).

        Raises:
            InvalidConfig: If the adapter uses DoRA, or its part of the weights has no low rank.
        """
        way_out = "Save it without path_initial_model_for_weight_conversion."
        if (how := self.changes[name]) in NOT_LOW_RANK:
            message = f"{_as_option(how)} of {name!r} changed base weights by more than a LoRA can stand for"
            raise InvalidConfig(f"{message}. {way_out}", adapter_name=name)
        if config["use_dora"]:
            raise InvalidConfig(f"A DoRA adapter cannot be converted: its magnitudes are of changed weights. {way_out}")
        state, config = dict(state), dict(config)
        for path, (first, second) in self.factors[name].items():
            for part, beginning, dimension in (("lora_A", first, 0), ("lora_B", -second, 1)):
                key = f"{prefix}{path}.{part}.weight"
                state[key] = torch.cat([state[key], beginning.to(state[key])], dimension)
        growth = math.sqrt(2) if config["use_rslora"] else 2  # of alpha, so that the scaling stays
        config |= {"init_lora_weights": True, "r": 2 * config["r"], "lora_alpha": growth * config["lora_alpha"]}
        config["rank_pattern"] = {key: 2 * r for key, r in config["rank_pattern"].items()}
        config["alpha_pattern"] = {key: growth * alpha for key, alpha in config["alpha_pattern"].items()}
        return state, config


def _finish(
    base: Any, planned: PlannedAdapter, children: Mapping[str, Child], values: tuple[torch.Tensor, ...] | None
) -> None:
    """Give the factors of a layer their first values, if they get any, and remove what PEFT prepared it with."""
    for _, prepared in PREPARED_BY.values():
        base.__dict__.pop(prepared, None)
    if values is not None:
        for factor, value in zip(state_of(children).values(), values, strict=False):
            factor.copy_(value.to(base.weight.dtype))  # rounded, as in PEFT
        fill_magnitude(children, base, planned)


def _as_option(how: str) -> str:
    """Return an initialisation, or a variant, as it stands in a configuration."""
    return how if how == "kasa_config" else f"init_lora_weights={how!r}"


def _run(config: AdapterConfig, base: Any, planned: PlannedAdapter) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Return the first factors, if it finds any, and the changed weight of a layer, which stays as it is.

    The stand-in has what PEFT's layer has at that moment, made in the same order, so that a seed gives the same.
    """
    from peft.tuners.lora.layer import LoraLayer as PeftLayer  # noqa: PLC0415 - peft is optional, and slow to import

    read, written = features_of(base, planned.kind)
    layer = copy.copy(base)
    layer.__dict__["_parameters"] = {**base._parameters, "weight": nn.Parameter(base.weight.detach().clone())}  # noqa: SLF001
    if config.variant == "kasa_config":
        truncate_base(layer, planned.r)
        return (), layer.weight.detach()
    stand_in: Any = SimpleNamespace(
        get_base_layer=lambda: layer,
        in_features=read,
        out_features=written,
        fan_in_fan_out=planned.fan_in_fan_out,
        r={ONE: planned.r},
        scaling={ONE: planned.scaling},
        lora_A={ONE: nn.Linear(read, planned.r, bias=False)},
        lora_B={ONE: nn.Linear(planned.r, written, bias=False)},
        lora_embedding_A={},
    )
    how = str(config.initialisation)
    method = getattr(PeftLayer, f"{how.partition('_niter_')[0]}_init")
    more: dict[str, tuple[Any, ...]] = dict.fromkeys(("orthogonal", "olora", "mica"), ())
    more |= {"loftq": (config,), "lora_ga": (getattr(config, "lora_ga_config", None),)}
    method(stand_in, ONE, *more.get(how, (how,)))
    return (stand_in.lora_A[ONE].weight.detach(), stand_in.lora_B[ONE].weight.detach()), layer.weight.detach()
