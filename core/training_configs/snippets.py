"""Write the LoRA part of a configuration with other targets, in the format of its project."""

import json
import shlex
from typing import Any

from ..domain.targets import Targets, TargetSpec
from .lora_part import LoraPart


def write_snippet(part: LoraPart, spec: TargetSpec) -> str:
    """Return lines to put in place of the targets of a part; of a spec that the project can state."""
    project = part.project
    is_regex = isinstance(spec.target_modules, str)
    keyed = (
        (project.regex if project.regex and is_regex else project.targets, spec.target_modules),
        (project.excluded, spec.exclude_modules),
        (project.parameters, spec.target_parameters),
        (project.saved, spec.modules_to_save),
    )
    values: dict[str, Any] = {key: _state(part, key, names) for key, names in keyed if key and names}
    if project.every_if and part.every and part.every.text == project.every_if:
        values = {project.every_if: False, **values}
    write = {"yaml": _write_yaml, "json": _write_json, "shell": _write_shell, "python": _write_python}[part.form]
    return write(values)


def _state(part: LoraPart, key: str, names: Targets) -> str | list[str]:
    """Return names as the project states them: a regex, a list, or a text with commas between them."""
    if isinstance(names, str):
        return names
    project = part.project
    is_text = key in project.joined or (project.text == "list" and part.form == "shell")
    return ",".join(names) if is_text else [*names]


def _write_yaml(values: dict[str, Any]) -> str:
    lines: list[str] = []
    before: list[str] = []
    for key, value in values.items():
        *parents, name = key.split(".")
        lines += [f"{'  ' * depth}{parent}:" for depth, parent in enumerate(parents) if before[:1] != parents[:1]]
        before, indent = parents, "  " * len(parents)
        if isinstance(value, list):
            lines += [f"{indent}{name}:", *(f"{indent}  - {_quote(item)}" for item in value)]
        else:
            lines.append(f"{indent}{name}: {_quote(value)}")
    return "\n".join(lines)


def _quote(value: Any) -> str:
    """Return a scalar of YAML: names and switches are plain, other texts quoted, without escapes."""
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    is_plain = (
        text.replace("_", "").replace(".", "").replace(",", "").replace("-", "").isalnum() and text[0] not in "-,"
    )
    return text if is_plain else "'" + text.replace("'", "''") + "'"


def _write_json(values: dict[str, Any]) -> str:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *parents, name = key.split(".")
        inside = nested
        for parent in parents:
            inside = inside.setdefault(parent, {})
        inside[name] = value
    return json.dumps(nested, indent=2)[2:-2]


def _write_shell(values: dict[str, Any]) -> str:
    options = (
        f"--{key} {' '.join(map(shlex.quote, value)) if isinstance(value, list) else shlex.quote(str(value))}"
        for key, value in values.items()
    )
    return " \\\n".join(options)


def _write_python(values: dict[str, Any]) -> str:
    lines = (
        f"{key}={json.dumps(value)}" if isinstance(value, list) else f"{key}={value!r}" for key, value in values.items()
    )
    return "\n".join(f"{line}," for line in lines)
