"""Try entries of PEFT's tables with the installed PEFT, each on its model, in a process of its own.

``python -m loradar.adapters.peft_bridge.trial`` reads trials from standard input, as JSON, and prints one JSON object
for each. Models are built on the meta device, at full depth: a trial shows whether PEFT accepts the entry, not how
it trains.
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

REQUIRED = {"ADALORA": {"total_step": 1}}
"""The arguments that a configuration requires (``note`` in ``data/methods.toml``)."""

Trial = dict[str, Any]


def run_trials(trials: list[Trial]) -> Iterator[dict[str, Any]]:
    """Yield name, peft_type and reason of each trial: the reason why PEFT cannot use the entry, or ``None``.

    Args:
        trials: Sorted by name; each with ``name``, ``peft_type``, ``tables`` (entries to set, by table) and
            ``matched``, the number of layers that the entry should match, if that is known.
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
    """Adapt a model with the entry alone; return the reason of a failure, or ``None``."""
    import peft
    from peft.utils import constants

    for table, targets in trial["tables"].items():
        getattr(constants, table)[trial["name"]] = targets
    method = peft.PeftType(trial["peft_type"])
    config = peft.PEFT_TYPE_TO_CONFIG_MAPPING[method](**REQUIRED.get(method.value, {}))
    try:
        with device("meta"):
            adapted = peft.get_peft_model(model, config)
    except Exception as error:  # noqa: BLE001 - PEFT and the code of models may raise anything
        first_line = _sentence(str(error).partition("\n")[0])
        return f"peft {peft.__version__} rejects it: {type(error).__name__}: {first_line}"
    matched, expected = len(adapted.base_model.targeted_module_names), trial["matched"]
    if expected in (None, matched):
        return None
    return f"peft {peft.__version__} adapts {matched} layers by it, and {expected} are expected"


def _sentence(text: str) -> str:
    """Return the first sentence of a message, at most 200 characters of it."""
    return text.partition(". ")[0][:200].removesuffix(".")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    quiet_libraries()
    for result in run_trials(json.load(sys.stdin)):
        sys.stdout.write(json.dumps(result) + "\n")
