"""scan_config: a transformers ``config.json`` that somebody sends -> a scan of the model it describes.

Only model types that transformers itself has are built. What a configuration can have loaded or run (code beside it,
kernels of a hub, a pretrained backbone) is left out or refused before it is read.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ..domain.scans import Scan
from ..errors import InvalidRequest, ScanFailed, UnknownArchitecture
from ..extras import require
from ..validation.text import explain_invalid_name, shorten
from . import sources
from .facts.data_files import read_facts
from .scanner import scan
from .sources.hub import offline

MOST_VALUES = 20_000
MOST_NESTING = 24
LONGEST_STRING = 4_096


def scan_config(config: Mapping[str, Any]) -> Scan:
    """Scan the model that a configuration describes: on meta, at full depth, traced if a forward runs.

    Args:
        config: What a ``config.json`` holds.

    Raises:
        InvalidRequest: If it is too large or too deep, or a number in it is absurd.
        UnknownArchitecture: If its ``model_type`` is none of transformers' own.
        ScanFailed: If the model does not build from it.
        MissingExtra: If transformers is not installed.
    """
    require("scan", "transformers")
    check_config(config)
    model_type = config.get("model_type")
    _check_known(model_type, runs_code="auto_map" in config)
    cleaned = clean_config(config)
    with offline():
        try:
            return scan(sources.make_config(str(model_type), cleaned))
        except ScanFailed as error:
            cause = error.details.get("cause") or error.message
            message = f"No model of type {model_type!r} builds from this configuration ({cause})."
            raise type(error)(message, **error.details) from error


def _check_known(model_type: Any, *, runs_code: bool) -> None:
    if not isinstance(model_type, str) or not model_type:
        message = (
            "The configuration has no model_type, which tells what it configures. Send a transformers config.json."
        )
        raise InvalidRequest(message, field="model_type")
    fault = explain_invalid_name(model_type)
    if fault:
        raise InvalidRequest(f"model_type: {fault}", field="model_type")
    known = sources.list_names("transformers")
    if model_type not in known:
        code = " The code its auto_map names is never run." if runs_code else ""
        raise UnknownArchitecture(
            model_type, known, f"Only transformers' own types are built.{code}", library="transformers"
        )


def check_config(config: Mapping[str, Any]) -> None:
    """Check the bounds of a configuration, before anything is made of it.

    Raises:
        InvalidRequest: Naming the setting, its value and the most it may be.
    """
    for count, (path, value) in enumerate(_walk(config)):
        if count >= MOST_VALUES:
            message = f"The configuration has more than {MOST_VALUES} values. Leave out what configures no layer."
            raise InvalidRequest(message, limit=MOST_VALUES)
        fault = _fault_in(path, value)
        if fault:
            raise InvalidRequest(f"Setting {shorten('.'.join(path))} {fault}", field=".".join(path)[:200])


def _walk(value: Any, path: tuple[str, ...] = (), nesting: int = 0) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every value with the names around it; a value in a list has the names of the list.

    Raises:
        InvalidRequest: If it is nested too deep.
    """
    if nesting > MOST_NESTING:
        message = f"The configuration is nested deeper than {MOST_NESTING}. Send one that transformers has written."
        raise InvalidRequest(message, limit=MOST_NESTING)
    if path:
        yield path, value
    if isinstance(value, Mapping):
        for name, held in value.items():
            yield from _walk(held, (*path, str(name)), nesting + 1)
    elif isinstance(value, list | tuple):
        for held in value:
            yield from _walk(held, path, nesting + 1)


def _fault_in(path: tuple[str, ...], value: Any) -> str | None:
    facts, name = read_facts("sent.toml")["config"], path[-1].lower()
    if isinstance(value, str):
        return _fault_in_string(name, value, facts["names"])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    counts: dict[str, int] = facts["counts"]
    most = min((limit for word, limit in counts.items() if word in name.split("_")), default=facts["most"])
    return f"is {str(value)[:40]}; {most} is the most." if isinstance(value, int) and abs(value) > most else None


def _fault_in_string(name: str, value: str, names: list[str]) -> str | None:
    if len(value) > LONGEST_STRING:
        return f"has {len(value)} characters; {LONGEST_STRING} is the most."
    if name in names and explain_invalid_name(value):
        return f"is {shorten(value)}, which is no name in a library: nothing is loaded from a repo or a path."
    return None


def clean_config(value: Any) -> Any:
    """Return a configuration without what would have something loaded or run, at any depth."""
    if isinstance(value, Mapping):
        return {str(name): clean_config(held) for name, held in value.items() if not _is_left_out(str(name))}
    return [clean_config(held) for held in value] if isinstance(value, list | tuple) else value


def _is_left_out(name: str) -> bool:
    facts = read_facts("sent.toml")["config"]
    return name in facts["left_out"] or name.endswith(tuple(facts["left_out_ending"]))
