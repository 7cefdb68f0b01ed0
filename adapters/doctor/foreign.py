"""Examine a file of diffusers, kohya or ComfyUI beside the models it is for."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...weights.diagnoses import Diagnosis, Finding, Level
from ..formats import Component, Lora, find_components, find_named
from .conversion import find_misfits, read_any
from .stored import WRITTEN_BY, StoredAdapter

MOST = 3
SENT = "the model of the config.json that was sent"


def examine_foreign(stored: StoredAdapter, name: str, model: Any) -> Diagnosis:
    """Examine a file whose names are not PEFT's.

    Args:
        stored: The file.
        name: Its name, for the diagnosis.
        model: The pipeline or the model it is for, or the content of its ``config.json``; ``None`` if it is not known.

    Raises:
        InvalidReference: If the model is none that can be found.
        HubFailed: If a hub does not give its configurations.
        ScanFailed: If no model builds from one.
    """
    told = Finding(
        "format", "warning", f"{stored.file.name} {WRITTEN_BY[stored.format]}.", _name_way_out(stored, model)
    )
    note = "only its format was told: give --model, the folder or repo of the pipeline" if model is None else ""
    named = find_named(model)
    if named:
        note = f"numbers of layers and widths are those of the default configuration of {named}"
    is_read = model is not None and stored.format not in ("gguf", "unknown")
    components = find_components(model) if is_read else {}
    if not components:
        told = replace(told, level="error")  # nothing is known of it but that PEFT does not load it
        return Diagnosis(name, stored.format, None, note, 0, 0, {}, {}, (told,))
    lora = read_any({"": stored}, components)
    towers = {part: len(factors) for part, factors in lora.factors.items()}
    findings = sorted(
        (told, *_find_strays(lora, components, named), *_find_bad_values(lora)),
        key=lambda finding: finding.level != "error",
    )
    landed = sum(towers.values())
    base = SENT if isinstance(model, Mapping) else str(model)
    return Diagnosis(name, stored.format, base, note, landed + len(lora.unknown), landed, towers, {}, tuple(findings))


def _name_way_out(stored: StoredAdapter, model: Any) -> str:
    if stored.format in ("gguf", "unknown"):
        return "PEFT and loradar load PEFT's."
    given = f" --model {model}" if isinstance(model, str) else ""
    return f"PEFT and loradar load PEFT's: loradar doctor ADAPTER{given} --to peft --out OUT writes it so."


def _find_strays(lora: Lora, components: Mapping[str, Component], named: str | None) -> Iterator[Finding]:
    """Yield the factors that fit no layer of the model; the sizes of one that is only ``named`` may be others."""
    of_sizes: Level = "warning" if named else "error"
    another = f"another base than the default configuration of {named}" if named else "another base"
    way_out = "Give the folder or the repo of the pipeline it was trained on: --model."
    by_reason: dict[str, list[str]] = defaultdict(list)
    for key, why in lora.unknown.items():
        by_reason[why].append(key)
    for why, keys in by_reason.items():
        message = f"{len(keys)} names are of no layer: {_list_some(keys)}: {why}."
        yield Finding("unknown-layers", of_sizes, message, way_out)
    misfits = [*find_misfits(lora, components)]
    if misfits:
        message = f"{len(misfits)} layers have other widths: {'; '.join(misfits[:MOST])}: it is for {another}."
        yield Finding("shapes", of_sizes, message, way_out)


def _find_bad_values(lora: Lora) -> Iterator[Finding]:
    """Yield the factors that change nothing, or change outputs to what is no number."""
    every = {f"{name}.{path}": one for name, paths in lora.factors.items() for path, one in paths.items()}
    wrong = [path for path, one in every.items() if not all(t.float().isfinite().all() for t in one.tensors.values())]
    if wrong:
        message = f"{len(wrong)} layers have factors with NaN or infinity: {_list_some(wrong)}."
        yield Finding("values", "error", message, "Train it again from a checkpoint before the loss became NaN.")
    zero = [path for path, one in every.items() if not one.tensors["lora_B.weight"].any()]
    if zero:
        level, more = (
            ("error", "the adapter changes nothing") if len(zero) == len(every) else ("warning", "they do nothing")
        )
        message = f"The second factor (B) of {len(zero)} of {len(every)} layers is zero: {more}: {_list_some(zero)}."
        yield Finding("zero", level, message, "They got no gradient: leave them out, or check why.")  # type: ignore[arg-type]
    if any(one.alpha == 0 for one in every.values()):
        yield Finding("alpha", "error", "alpha is 0: the update is scaled by 0.", "Set it to that of the training.")


def _list_some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(name[:200] for name in names[:MOST]) + more
