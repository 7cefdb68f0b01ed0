"""The calls in a Python file that configure LoRA, with their arguments and the model that is loaded; nothing is run."""

import ast
from typing import Any

from ..errors import InvalidConfig
from .documents import Document, Entry

_CONFIGURES = ("LoraConfig", "get_peft_model")
_ADDS_TOKENS = ("add_tokens", "add_new_tokens", "resize_token_embeddings")
_NO_MODEL = ("Tokenizer", "Processor", "Config", "FeatureExtractor", "PeftModel")
_UNKNOWN = object()


def read_python(text: str) -> tuple[Document, ...]:
    """Return each call that has a LoRA configuration, with ``from_pretrained`` for the model loaded before it.

    Raises:
        InvalidConfig: If the file is no Python; names the line.
    """
    tree = _parse(text)
    constants = _list_constants(tree)
    calls = sorted((node for node in ast.walk(tree) if isinstance(node, ast.Call)), key=lambda call: call.lineno)
    tokens = next((call for call in calls if _name_of(call).rpartition(".")[2] in _ADDS_TOKENS), None)
    around = {"added_tokens": Entry(value=True, line=tokens.lineno)} if tokens else {}
    found = []
    for call in calls:
        name = _name_of(call)
        if name.endswith(".from_pretrained"):
            around |= _find_model(call, name, constants)
        elif name.rpartition(".")[2] in _CONFIGURES and call.keywords:
            entries = {each.arg: _entry(each.value, each.value.lineno, constants) for each in call.keywords if each.arg}
            found.append(Document("python", entries | around, name, call.lineno))
    return tuple(found)


def _parse(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f" on line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise InvalidConfig(f"It cannot be read as Python: {getattr(error, 'msg', error)}{line}.") from error


def _name_of(call: ast.Call) -> str:
    parts, node = [], call.func
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([*([node.id] if isinstance(node, ast.Name) else ["?"]), *reversed(parts)])


def _list_constants(tree: ast.Module) -> dict[str, ast.expr]:
    """Return the expression of each name that is assigned once in the file."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, []).append(node.value)
    return {name: values[0] for name, values in found.items() if len(values) == 1}


def _find_model(call: ast.Call, name: str, constants: dict[str, ast.expr]) -> dict[str, Entry]:
    """Return the entry of the model that a call loads; none if it loads something else, or the name is computed."""
    if any(part in name for part in _NO_MODEL):
        return {}
    named = {each.arg: each.value for each in call.keywords}
    given = [*call.args[:1], *(named[key] for key in ("model_name", "pretrained_model_name_or_path") if key in named)]
    entry = _entry(given[0], given[0].lineno, constants) if given else None
    return {"from_pretrained": entry} if entry and isinstance(entry.value, str) else {}


def _entry(node: ast.expr, line: int, constants: dict[str, ast.expr]) -> Entry:
    """Return the value of a literal, or of a name that stands for one."""
    if isinstance(node, ast.Name) and node.id in constants:
        node = constants[node.id]
    value = _evaluate(node)
    if isinstance(node, ast.List | ast.Tuple | ast.Set) and value is not _UNKNOWN:
        return Entry([*value], line, tuple(item.lineno for item in node.elts))
    is_read = value is None or isinstance(value, str | int | float | bool)
    return Entry(value if is_read else None, line, is_read=is_read)


def _evaluate(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _UNKNOWN
