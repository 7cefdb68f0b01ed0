"""``doctor``: read an adapter, find its model, compare both, and write a mended copy."""

from collections.abc import Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from ...domain.patterns import pattern_of
from ...errors import HubFailed, InvalidConfig, InvalidReference, ScanFailed
from ...weights.diagnoses import Diagnosis, Finding
from ..config import AdapterConfig
from ..peft_forms import config_from_peft
from .base import ADAPTABLE, Base, Rename, find_base, find_rename
from .findings import Case, find_faults
from .foreign import examine_foreign
from .gguf_adapter import examine_gguf, read_header
from .mending import write_mended
from .serving import list_served
from .stored import WRITTEN_BY, StoredAdapter, Values, name_format, read_adapter, read_values


def doctor(adapter: str | PathLike[str], model: Any = None, *, fix: str | PathLike[str] | None = None) -> Diagnosis:
    """Examine a saved adapter beside the model it is for, by its configuration, its header and its factors' values.

    No weight of the model is read: its layers are those of a build on meta of its configuration, or those registered
    for its architecture, whose shapes are not known.

    Args:
        adapter: Its folder, its ``.safetensors`` file, or a repo: ``hub:org/repo``.
        model: The model: a module, a folder with its ``config.json``, ``hub:org/repo``, or an architecture such as
            ``llama``; by default the base model that the configuration of the adapter names.
        fix: A folder to write a mended copy into, in PEFT's format.

    Raises:
        AdapterUnreadable: If there is no adapter, or it cannot be read.
        WeightsUnreadable: If its header is damaged.
        InvalidReference: If the model is none that can be found.
        ScanFailed: If no model builds from the configuration.
        HubFailed: If a hub does not give the files.
        InvalidConfig: If ``fix`` is given and the adapter cannot be mended; names the reason.
    """
    stored = read_adapter(adapter)
    name = fspath(adapter)
    if stored.format != "peft":
        if fix is not None:
            message = f"{name} {WRITTEN_BY[stored.format]}. --fix mends PEFT's"
            is_final = stored.format in ("gguf", "unknown")
            way_out = "the adapter that it was made from" if is_final else "what --to peft --out OUT makes of it"
            raise InvalidConfig(f"{message}: mend {way_out}.", adapter=name)
        if stored.format == "gguf":
            return examine_gguf(read_header(stored.file), name, *_find_base(stored, model))
        return examine_foreign(stored, name, model)
    base, note = _find_base(stored, model)
    return examine(stored, name, base, note, fix=fix)


def examine(
    stored: StoredAdapter, name: str, base: Base | None, note: str, *, fix: str | PathLike[str] | None = None
) -> Diagnosis:
    """Examine an adapter in PEFT's format that was read beside a model whose layers are known.

    Args:
        stored: The adapter.
        name: Its name, for the diagnosis.
        base: The model; ``None`` if it is not known.
        note: What is not known of it.
        fix: As in ``doctor``.

    Raises:
        InvalidConfig: As in ``doctor``.
    """
    config, fault = _read_config(stored)
    has_values = stored.content is not None or stored.file.exists()
    values = read_values(stored) if has_values else Values()
    case = Case(stored, base, config, _find_renames(stored, base), values)
    findings = sorted((*fault, *find_faults(case)), key=lambda finding: finding.level != "error")
    unread = f"the values of {values.unread} large factors were not read" if values.unread else ""
    unread = unread if has_values else "the values were not sent, so none was found to be zero or NaN"
    note = "; ".join(filter(None, (note, unread)))
    if fix is not None:
        write_mended(case, Path(fix), findings)
    landed = [places[0].tower for _, places in case.list_landed()]
    return Diagnosis(
        adapter=name,
        format=name_format(stored),
        base=base.reference if base else None,
        note=note,
        layers=len(stored.factors),
        landed=len(landed),
        towers={tower: landed.count(tower) for tower in dict.fromkeys(landed)},
        renames={old: rename.new for old, rename in case.renames.items() if rename.new},
        findings=tuple(findings),
        served=list_served(case),
    )


def _find_base(stored: StoredAdapter, model: Any) -> tuple[Base | None, str]:
    """Return the model, and what is not known of it; one that the configuration alone names may be out of reach."""
    if model is not None:
        base = find_base(model)
        return base, base.note
    named = stored.config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        return None, "the configuration names no base model, so no names and shapes were compared: give --model"
    try:
        base = find_base(named)
    except (HubFailed, InvalidReference, ScanFailed) as error:
        return (
            None,
            f"the base model was not found, so no names and shapes were compared: give --model. {error.message}",
        )
    return base, base.note


def _read_config(stored: StoredAdapter) -> tuple[AdapterConfig | None, tuple[Finding, ...]]:
    if not stored.config:
        message = "adapter_config.json is missing: rank, alpha and targets are not known."
        return None, (Finding("config", "error", message, "Copy it from the folder that save_pretrained wrote."),)
    try:
        return config_from_peft(stored.config), ()
    except InvalidConfig as error:
        way_out = "Mend the field in adapter_config.json, or load the adapter with peft."
        return None, (Finding("config", "error", error.message, way_out),)


def _find_renames(stored: StoredAdapter, base: Base | None) -> dict[str, Rename]:
    """Return the renames of all layers that the model does not have under their own name, by path pattern."""
    return {rename.old: rename for rename in _list_renames(stored, base)} if base else {}


def _list_renames(stored: StoredAdapter, base: Base) -> Iterator[Rename]:
    sides = {pattern_of(factors.path): factors.sides for factors in stored.factors.values()}
    known = {pattern for pattern in sides if any(place.kind in ADAPTABLE for place in _find_places(base, pattern))}
    found = [find_rename(base, pattern, sides[pattern], known) for pattern in sides if pattern not in known]
    for rename in filter(None, found):
        rivals = [other for other in found if other and other.new == rename.new and other is not rename]
        is_one = not rivals or not rename.new or base.places[rename.new].kind == "expert_parameter"
        yield rename if is_one else Rename(rename.old, "", f"{rename.new} may also be {rivals[0].old}")


def _find_places(base: Base, pattern: str) -> list[Any]:
    own = base.places.get(pattern)
    inside = (place for name, place in base.places.items() if name.rpartition(".")[0] == pattern)
    return [own] if own else [place for place in inside if place.kind == "expert_parameter"]
