"""From an adapter folder to a ``PeftModel``: read and check everything, and only then touch the model."""

from dataclasses import replace
from os import PathLike

from torch import nn

from .checkpoint import read
from .hub import fetch
from .inject import apply, plan_for, settle
from .model import PeftModel
from .place import is_on_hub
from .sites import survey_model


def load(
    model: nn.Module, folder: str | PathLike[str], adapter_name: str = "default", *, is_trainable: bool
) -> PeftModel:
    """Put the adapter in ``folder``, or on the hub under ``hub:org/repo``, into ``model``, in place.

    Raises:
        HubFailed: If it cannot be had from the hub; the model is unchanged.
        AdapterUnreadable: If a file is missing, damaged or does not fit; the model is unchanged.
        InvalidConfig: If the adapter uses what loradar does not have; the model is unchanged.
    """
    config, tensors = read(fetch(str(folder)) if is_on_hub(folder) else folder)
    survey = survey_model(model)
    config = settle(replace(config, inference_mode=not is_trainable), survey)
    adapted = apply(survey, plan_for(survey, config), config, adapter_name, tensors)
    return adapted if is_trainable else adapted.eval()
