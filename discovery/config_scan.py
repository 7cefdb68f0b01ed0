"""The scan of a transformers ``config.json`` from an untrusted sender.

Only model types of transformers itself are built. Settings that could load or run code (code beside the file, kernels
of a hub, a pretrained backbone) are removed or rejected before the configuration is read.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from ..data import read_facts
from ..domain.scans import Scan
from ..errors import InvalidRequest, ScanFailed, UnknownArchitecture
from ..extras import require
from ..references import Reference
from ..validation.text import explain_invalid_name, shorten
from . import sources
from .scanner import scan_built
from .sources.hub import fetch_config, offline

MOST_VALUES = 20_000
MOST_NESTING = 24
LONGEST_STRING = 4_096


def scan_config(config: Mapping[str, Any], method: str = "auto") -> Scan:
    """Scan the model that a configuration describes: on meta, at full depth, traced if a forward runs.

    Args:
        config: The content of a ``config.json``.
        method: ``auto``, ``dataflow`` or ``names``, as of ``scan``.

    Raises:
        InvalidRequest: If it is too large or too deep, or a number in it is absurd.
        UnknownArchitecture: If its ``model_type`` is not one of transformers' own.
        ScanFailed: If the model does not build from it.
        MissingExtra: If transformers is not installed.
    """
    require("scan", "transformers")
    check_config(config)
    model_type = check_model_type(config)
    with offline():
        try:
            return scan_built(sources.make_config(model_type, clean_config(config)), method=method)
        except ScanFailed as error:
            cause = error.details.get("cause") or error.message
            message = f"No model of type {model_type!r} builds from this configuration ({cause})."
            raise type(error)(message, **error.details) from error


def build_repo(reference: Reference) -> nn.Module:
    """Build the model that the ``config.json`` of a repo describes, on meta.

    Raises:
        HubFailed: If the file cannot be read.
        InvalidRequest: As ``scan_config``.
        UnknownArchitecture: As ``scan_config``.
        ScanFailed: As ``scan_config``.
    """
    require("scan", "transformers")
    config = fetch_config(reference)
    check_config(config)
    model_type = check_model_type(config)
    with offline():
        return sources.build_config(sources.make_config(model_type, clean_config(config)))


def check_model_type(config: Mapping[str, Any]) -> str:
    """Return the model type of a configuration, one of transformers' own.

    Raises:
        InvalidRequest: If the configuration states none, or not a name.
        UnknownArchitecture: If transformers has no such type.
    """
    model_type = config.get("model_type")
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
        code = " The code its auto_map names is never run." if "auto_map" in config else ""
        raise UnknownArchitecture(
            model_type, known, f"Only transformers' own types are built.{code}", library="transformers"
        )
    return model_type


def check_config(config: Mapping[str, Any]) -> None:
    """Check the bounds of a configuration, before anything is built from it.

    Raises:
        InvalidRequest: If a setting exceeds its bound; names the setting, its value and the bound.
    """
    for count, (path, value) in enumerate(_walk(config)):
        if count >= MOST_VALUES:
            message = f"The configuration has more than {MOST_VALUES} values. Leave out what configures no layer."
            raise InvalidRequest(message, limit=MOST_VALUES)
        fault = find_fault(path, value)
        if fault:
            raise InvalidRequest(f"Setting {shorten('.'.join(path))} {fault}", field=".".join(path)[:200])


def _walk(value: Any, path: tuple[str, ...] = (), nesting: int = 0) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every value with the names around it, down to the deepest nesting; items have the names of their list."""
    if nesting > MOST_NESTING:
        message = f"The configuration is nested deeper than {MOST_NESTING}. Send one that transformers has written."
        raise InvalidRequest(message, limit=MOST_NESTING)
    if path:
        yield path, value
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _walk(item, (*path, str(name)), nesting + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _walk(item, path, nesting + 1)


def find_fault(path: tuple[str, ...], value: Any) -> str | None:
    """Return the fault of a setting in words, if it exceeds a bound or names a repo or a path."""
    facts, name = read_facts("sent.toml")["config"], path[-1].lower()
    if isinstance(value, str):
        if len(value) > LONGEST_STRING:
            return f"has {len(value)} characters; {LONGEST_STRING} is the most."
        if name in facts["names"] and explain_invalid_name(value):
            return f"is {shorten(value)}, which is no name in a library: nothing is loaded from a repo or a path."
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    counts: dict[str, int] = facts["counts"]
    most = min((limit for word, limit in counts.items() if word in name.split("_")), default=facts["most"])
    return f"is {str(value)[:40]}; {most} is the most." if abs(value) > most else None


def clean_config(value: Any) -> Any:
    """Return a configuration without the settings that could load or run code, at any depth."""
    facts = read_facts("sent.toml")["config"]
    endings = tuple(facts["left_out_ending"])
    if isinstance(value, Mapping):
        kept = {str(name): item for name, item in value.items()}
        kept = {n: item for n, item in kept.items() if n not in facts["left_out"] and not n.endswith(endings)}
        return {name: clean_config(item) for name, item in kept.items()}
    return [clean_config(item) for item in value] if isinstance(value, list | tuple) else value
