"""First factors from base weights: PEFT's own functions (0.21.2), run on stand-ins of its layers.

Most of them take a part out of the base weights, so that the model computes the same at first. The weights from before
are kept in main memory, and the first factors with them: both together say what an adapter learned.
"""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from ...errors import InvalidConfig
from ...extras import require
from ..checks import CHANGING_THE_BASE, invalid
from ..config import AdapterConfig
from ..layers.base_layer import features_of
from ..layers.dora import fill_magnitude
from ..layers.planned import PlannedAdapter
from ..layers.wrappers import Child, state_of
from .ambient import without_modes
from .host_model import Survey

KINDS = ("linear", "transposed_linear")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
REPEATABLE = ("pissa", "olora")
"""The initialisations that find the same again in the same weights, so that a file needs no more than their name."""
ONE = "adapter"


def check_beginning(survey: Survey, config: AdapterConfig, adapters: Iterable[PlannedAdapter]) -> None:
    """Reject layers that an initialisation of PEFT's is not made for.

    Raises:
        MissingExtra: If peft is not installed.
        InvalidConfig: Naming the layer, the reason and the way out.
    """
    if not config.begins_with_peft:
        return
    require("peft", "peft")
    for planned in adapters:
        if config.initialisation == "orthogonal" and planned.r % 2:
            message = f"Orthogonal initialization requires the LoRA rank to be even, got {planned.r} instead"
            raise InvalidConfig(f"{message}, for {planned.path!r}: give an even one.", path=planned.path)
        if why := _find_obstacle(config, planned, survey.sites[planned.path].module):
            raise invalid("init_lora_weights", config.initialisation, f"does not fit {planned.path!r}, {why}.")


def _find_obstacle(config: AdapterConfig, planned: PlannedAdapter, base: nn.Module) -> str | None:
    """Return why an initialisation does not fit a layer, with the way out."""
    how, weight = config.initialisation, base._parameters.get("weight")  # noqa: SLF001 - a computed one has other names
    leave_out = "leave it out of the targets"
    rules = {
        f"which is no linear layer: {leave_out}": planned.kind not in KINDS or bool(planned.parameter),
        f"whose weight is not float32, float16 or bfloat16: {leave_out}": weight is None or weight.dtype not in DTYPES,
        "whose rank is above the size of its weight: give a smaller one": weight is not None
        and planned.r > min(weight.shape),
        f"which stores its weight transposed: {leave_out}": how == "olora" and planned.fan_in_fan_out,
        f"whose weight is shared and would change elsewhere too: {leave_out}": bool(config.base_changed_by)
        and planned.shares_weight,
        "whose weight was made under torch.inference_mode() and cannot be changed: make the model outside of it": bool(
            config.base_changed_by
        )
        and weight is not None
        and weight.is_inference(),
        "which peft's preprocess_corda has not prepared: call it on the model first": how == "corda"
        and not hasattr(base, "eigens"),
    }
    return next((why for why, is_so in rules.items() if is_so), None)


@dataclass(slots=True)
class Beginnings:
    """The base weights and first factors of a model's adapter whose initialisation changed the weights.

    Attributes:
        how: The initialisation; ``None`` if no weight is changed.
        weights: The weights from before, by path.
        factors: The first factors, by path: ``A`` and ``B``.
    """

    how: str | None = None
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    factors: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    @without_modes()
    @torch.no_grad()
    def begin(
        self,
        survey: Survey,
        config: AdapterConfig,
        parts: Iterable[tuple[PlannedAdapter, Mapping[str, Child]]],
        *,
        fill: bool,
    ) -> None:
        """Change the base weights as the initialisation of an adapter does; if that fails, they stay.

        Args:
            survey: The walk over the model.
            config: The adapter's configuration.
            parts: Its plan and its factors on each layer.
            fill: Whether the factors get their first values; those of a file have theirs.
        """
        if not config.begins_with_peft or not (fill or config.base_changed_by):
            return
        self.how = config.base_changed_by
        try:
            for planned, children in parts:
                base: Any = survey.sites[planned.path].module
                if planned.tokens or base.weight.is_meta:
                    continue
                first, second, weight = _run(str(config.initialisation), base, planned)
                if config.base_changed_by:
                    self.weights[planned.path] = base.weight.detach().to("cpu", copy=True)
                    self.factors[planned.path] = first.float().cpu(), second.float().cpu()
                    base.weight.data.copy_(weight)
                base.__dict__.pop("eigens", None)  # of CorDA, used up
                if fill:
                    for factor, value in zip(state_of(children).values(), (first, second), strict=False):
                        factor.copy_(value.to(base.weight.dtype))  # rounded, as in PEFT
                    fill_magnitude(children, base, planned)
        except BaseException:
            self.restore(survey)
            raise

    def restore(self, survey: Survey) -> None:
        """Give the base weights the values from before, bit for bit."""
        for path, weight in self.weights.items():
            survey.sites[path].module.weight.data.copy_(weight)  # type: ignore[operator]  # a parameter
        self.how = None
        self.weights.clear()
        self.factors.clear()

    def check_alone(self, name: str, config: AdapterConfig, known: str) -> None:
        """Reject a second adapter where one changes the base weights, which both would share.

        Args:
            name: Name of the second.
            config: Its configuration.
            known: Name of the first.

        Raises:
            InvalidConfig: Naming the one that changes them.
        """
        if how := self.how or config.base_changed_by:
            message = f"init_lora_weights={how!r} of {(known if self.how else name)!r} changes base weights"
            way_out = "give it a model of its own, or save it with path_initial_model_for_weight_conversion first"
            raise InvalidConfig(f"{message}, so no other adapter fits beside it: {way_out}.", adapter_name=name)

    def write(
        self, state: Mapping[str, torch.Tensor], config: Mapping[str, Any], prefix: str, *, is_converted: bool
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return an adapter's tensors and configuration as a file holds them.

        Args:
            state: Its tensors.
            config: Its configuration.
            prefix: The prefix of their keys.
            is_converted: Whether it becomes an ordinary LoRA on the former weights, though loading could change them.

        Raises:
            InvalidConfig: If the adapter has to be converted, and uses DoRA.
        """
        if self.how and (is_converted or self.how not in REPEATABLE):
            return self.convert(state, config, prefix)
        written = str(config.get("init_lora_weights")).startswith(CHANGING_THE_BASE)
        how = {"init_lora_weights": self.how or True} if self.how or written else {}  # a changed field tells nothing
        return dict(state), {**config, **how}

    def convert(
        self, state: Mapping[str, torch.Tensor], config: Mapping[str, Any], prefix: str
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return an adapter's tensors and configuration as an ordinary LoRA of twice the rank on the former weights.

        Its update is ``B @ A`` minus that of the first factors (``subtract_mutated_init``).

        Raises:
            InvalidConfig: If the adapter uses DoRA.
        """
        if config["use_dora"]:
            way_out = "Save it without path_initial_model_for_weight_conversion."
            raise InvalidConfig(f"A DoRA adapter cannot be converted: its magnitudes are of changed weights. {way_out}")
        state, config = dict(state), dict(config)
        for path, (first, second) in self.factors.items():
            for name, beginning, dimension in (("lora_A", first, 0), ("lora_B", -second, 1)):
                key = f"{prefix}{path}.{name}.weight"
                state[key] = torch.cat([state[key], beginning.to(state[key])], dimension)
        growth = math.sqrt(2) if config["use_rslora"] else 2  # of alpha, so that the scaling stays
        config |= {"init_lora_weights": True, "r": 2 * config["r"], "lora_alpha": growth * config["lora_alpha"]}
        config["rank_pattern"] = {key: 2 * r for key, r in config["rank_pattern"].items()}
        config["alpha_pattern"] = {key: growth * alpha for key, alpha in config["alpha_pattern"].items()}
        return state, config


def _run(how: str, base: Any, planned: PlannedAdapter) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the first factors and the changed weight of a layer, which stays as it is.

    The stand-in has what PEFT's layer has at that moment, made in the same order, so that a seed gives the same.
    """
    from peft.tuners.lora.layer import LoraLayer as PeftLayer  # noqa: PLC0415 - peft is optional, and slow to import

    read, written = features_of(base, planned.kind)
    layer = copy.copy(base)
    layer.__dict__["_parameters"] = {**base._parameters, "weight": nn.Parameter(base.weight.detach().clone())}  # noqa: SLF001
    stand_in: Any = SimpleNamespace(
        get_base_layer=lambda: layer,
        in_features=read,
        out_features=written,
        fan_in_fan_out=planned.fan_in_fan_out,
        r={ONE: planned.r},
        scaling={ONE: planned.scaling},
        lora_A={ONE: nn.Linear(read, planned.r, bias=False)},
        lora_B={ONE: nn.Linear(planned.r, written, bias=False)},
    )
    if how == "orthogonal":
        PeftLayer.orthogonal_init(stand_in, ONE)
    elif how == "olora":
        PeftLayer.olora_init(stand_in, ONE)
    elif how == "corda":
        PeftLayer.corda_init(stand_in, ONE, how)
    else:
        PeftLayer.pissa_init(stand_in, ONE, how)
    return stand_in.lora_A[ONE].weight.detach(), stand_in.lora_B[ONE].weight.detach(), layer.weight.detach()
