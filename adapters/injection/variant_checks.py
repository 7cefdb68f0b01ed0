"""Which layers variants of LoRA fit: DoRA, a bias of ``B``, and those that PEFT's classes compute."""

from collections.abc import Iterable

from torch import nn

from ...discovery import CONV_KINDS, is_plain_conv
from ...errors import InvalidConfig
from ...extras import require
from ...warn import warn
from ..config import AdapterConfig
from ..layers.dora import has_dense_weight
from ..layers.peft_variants import Variant
from ..layers.planned import PlannedAdapter
from .host_model import Survey


def plan_variant(config: AdapterConfig, name: str) -> Variant:
    """Return the variant of LoRA that a configuration asks for, for one layer.

    Raises:
        MissingExtra: If peft is not installed.
    """
    require("peft", "peft")
    return Variant(name, getattr(config, name, None))


def check_variant(survey: Survey, planned: Iterable[PlannedAdapter]) -> None:
    """Reject layers without DoRA or a bias of ``B`` in PEFT's words; warn of biases that cannot be merged."""
    without_bias = []
    for each in planned:
        module = survey.sites[each.path].module
        name = type(module).__name__
        if (why := _variant_misfit(module, each)) is not None:
            option = "lora_bias=True is not supported for {}"
            if each.variant:
                option = f"{each.variant.name} is not supported for {{}}"
            elif each.use_dora:
                option = "{} does not support DoRA (yet), please set use_dora to False or leave it out"
            raise InvalidConfig(f"{each.path!r}: {option.format(name)}: {why}.", path=each.path, class_name=name)
        if each.lora_bias and getattr(module, "bias", None) is None:
            without_bias.append(f"{name} has no bias ({each.path!r}")
    if without_bias:
        message = f"`lora_bias=True` was passed but the targeted layer of type {without_bias[0]}"
        warn(f"{message}, {len(without_bias)} such layers in all): the adapter cannot be merged there.")


def _variant_misfit(module: nn.Module, planned: PlannedAdapter) -> str | None:
    """Return why a layer cannot have the variant that is planned; ``None`` if it can."""
    if planned.parameter:
        return f"its parameter {planned.parameter!r} is adapted, not its output"
    if planned.variant and planned.kind not in ("linear", "transposed_linear"):
        return "it is no linear layer; exclude_modules leaves it out"
    if (planned.use_dora or planned.variant) and not has_dense_weight(module):
        return "its weight is packed in a way of its own, or offloaded"
    if planned.lora_bias and planned.kind == "embedding":
        return "its B is no layer"
    has_no_bias = planned.lora_bias and getattr(module, "bias", None) is None
    if has_no_bias and planned.kind in CONV_KINDS and not is_plain_conv(module):
        return "it has a forward of its own and no bias"
    return None
