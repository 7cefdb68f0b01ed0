"""Tries entries of PEFT's tables on the installed PEFT, each on the model it is for; always a process of its own.

``python -m loradar.adapters.peft_bridge.trial`` reads trials from standard input, as JSON, and prints one JSON object
for each. Models are built on the meta device, at full depth: whether PEFT takes the entry is tried, not how it trains.
"""

import json
import sys
import warnings
from collections.abc import Iterator
from copy import deepcopy
from itertools import groupby
from typing import Any

from torch import device, nn

from ...discovery import build, quiet_libraries
from ...errors import LoradarError
from ...references import Reference

DEMANDED = {"ADALORA": {"total_step": 1}}
"""What a configuration does not do without (``note`` in ``data/methods.toml``)."""

Trial = dict[str, Any]


def run_trials(trials: list[Trial]) -> Iterator[dict[str, Any]]:
    """Yield (name, peft_type, reason) of each trial: why the entry is no use to PEFT, or ``None``.

    Args:
        trials: Sorted by name; each with ``name``, ``peft_type``, ``tables`` (entries to set, by table) and
            ``matched``, the layers the entry is to hit, if that is known.
    """
    for name, group in groupby(trials, lambda trial: str(trial["name"])):
        try:
            model: nn.Module | None = build(Reference("transformers", name))
            untried = None
        except LoradarError as error:  # such as a type that only another version of transformers knows
            model, untried = None, f"it cannot be tried: {_sentence(error.message)}"
        for trial in group:
            reason = untried if model is None else _try(trial, deepcopy(model))
            yield {"name": name, "peft_type": trial["peft_type"], "reason": reason}


def _try(trial: Trial, model: nn.Module) -> str | None:
    """Adapt a model with nothing but the entry to go by; return what went wrong, or ``None``."""
    import peft
    from peft.utils import constants

    for table, targets in trial["tables"].items():
        getattr(constants, table)[trial["name"]] = targets
    method = peft.PeftType(trial["peft_type"])
    config = peft.PEFT_TYPE_TO_CONFIG_MAPPING[method](**DEMANDED.get(method.value, {}))
    try:
        with device("meta"):
            adapted = peft.get_peft_model(model, config)
    except Exception as error:  # noqa: BLE001 - PEFT and the code of models may raise anything
        said = _sentence(str(error).partition("\n")[0])
        return f"peft {peft.__version__} refuses it: {type(error).__name__}: {said}"
    hit, meant = len(adapted.base_model.targeted_module_names), trial["matched"]
    return None if meant in (None, hit) else f"peft {peft.__version__} adapts {hit} layers by it, and {meant} are meant"


def _sentence(text: str) -> str:
    """Return the first sentence of a message, at most 200 characters of it."""
    return text.partition(". ")[0][:200].removesuffix(".")


def _main() -> None:
    warnings.simplefilter("ignore")
    quiet_libraries()
    for result in run_trials(json.load(sys.stdin)):
        sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    _main()
