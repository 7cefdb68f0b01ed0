"""The model card of an adapter: its layers, the decision on its targets and the code that loads it."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import data
from ...discovery import read_attribute
from ...domain.patterns import pattern_of
from ...errors import AdapterUnreadable
from ...extras import require
from ...references import HubFolder

if TYPE_CHECKING:
    from jinja2 import Template

    from ..adapted import Adapted

CARD = "README.md"
TEMPLATE = "model_card.md.jinja"
THIS_FOLDER = "path/to/this/folder"
MARK = "\n\n<!-- Written by loradar, and replaced by the next save until it is edited. "
LISTED_ALWAYS = ("r", "lora_alpha")
LISTED_ELSEWHERE = (
    *("target_modules", "inference_mode", "base_model_name_or_path", "revision", "auto_mapping", "peft_version"),
)
MARKUP = re.compile(r"[\\`*\[\]<>&|~]|(?<![^\W_])_|_(?![^\W_])|^[#+=-]")
"""Characters that could be markup: anywhere, an underscore not within a word, the last few only at the beginning."""
NUMBERED = re.compile(r"^(\d+)([.)])")


def card_of(model: "Adapted", source: str = THIS_FOLDER, tags: Iterable[str] = ()) -> str:
    """Return the model card of a model's active adapter: front matter, then Markdown.

    Args:
        model: Any model with an adapter, also one that was loaded.
        source: Location to load the adapter from: a folder, or ``hub:org/repo[/subfolder][@revision]``.
        tags: Tags of the model beside its own.

    Raises:
        MissingExtra: If huggingface_hub or jinja2 is not installed.
    """
    require("scan", "huggingface_hub", "jinja2")
    from huggingface_hub import ModelCardData

    config, kind = model.active_peft_config, type(model.get_base_model())
    settings, defaults = config.to_peft_dict(), type(config)().to_peft_dict()
    method, named = str(settings["peft_type"]), settings["base_model_name_or_path"]
    is_library = read_attribute(model.get_base_model(), "config") is not None or "/" in (named or "")
    base = _hub_name(named) if is_library else None  # the name of a user's own class is no repo
    tags = dict.fromkeys((method.lower(), "loradar", *tags))
    about = ModelCardData(base_model=base, library_name="peft", tags=[*tags])
    listed = [
        (name, value)
        for name, value in settings.items()
        if name in LISTED_ALWAYS or (name not in LISTED_ELSEWHERE and value != defaults[name])
    ]
    size, (_, total) = sum(t.numel() for t in model.adapter_state().values()), model.get_nb_trainable_parameters()
    layers = list(_layers(model))
    packages = dict.fromkeys(("loradar", "torch", kind.__module__.partition(".")[0]))
    card = _template().render(
        card_data=about.to_yaml(),
        method=method,
        base=base,
        kind=kind.__name__,
        targets=settings["target_modules"],
        settings=listed,
        size=f"{size:,} of {total:,} ({size / total:.2%})",
        norms=len({key.rpartition(".")[0] for key in model.norm_statistics()}),
        layers=layers,
        has_roles=any(layer["role"] for layer in layers),
        decision=model.decision,
        **_loading(kind, base, source),
        versions=[(name, found) for name in packages if (found := _version(name))],
    )
    return _signed(card)


def write_card(model: "Adapted", folder: Path, source: str = THIS_FOLDER, tags: Iterable[str] = ()) -> None:
    """Write ``README.md`` into a folder, unless it has one written or edited by the user.

    Raises:
        AdapterUnreadable: If it cannot be written.
    """
    path = folder / CARD
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
        if text is None or text == _signed(text.rpartition(MARK)[0]):
            path.write_text(card_of(model, source, tags), encoding="utf-8")
    except OSError as error:
        raise AdapterUnreadable(f"{path} cannot be written: {error.strerror}.", path=str(path)) from error


@cache  # huggingface_hub's own `ModelCard.from_template` compiles it anew for every card
def _template() -> "Template":
    from jinja2 import Environment

    environment = Environment(autoescape=False)  # noqa: S701 - Markdown, which the filters escape
    environment.filters |= {"text": as_text, "code": as_code}
    return environment.from_string(files(data).joinpath(TEMPLATE).read_text(encoding="utf-8"))


@cache  # a trainer saves often, and reading metadata takes milliseconds
def _version(name: str) -> str | None:
    """Return the version of an installed package; a user's own class has none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _signed(text: str) -> str:
    """Return a card with a hash, by which a later edit shows."""
    return f"{text}{MARK}{sha256(text.encode()).hexdigest()[:16]} -->\n"


def _hub_name(name: str | None) -> str | None:
    """Return the name of a base model if it can be a repo id: the hub rejects cards with other names, such as paths."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented there

    try:
        validate_repo_id(name or "")
    except HFValidationError:
        return None
    return None if name is None or Path(name).exists() else name


def _layers(model: "Adapted") -> Iterator[dict[str, Any]]:
    """Yield the adapted layers by pattern and role, with the evidence of a scan for the first of each."""
    scanned = {layer.path: layer for layer in model.decision.layers} if model.decision else {}
    groups: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for path in (*model.targeted_module_names, *model.targeted_parameter_names):
        groups[pattern_of(path), scanned[path].role if path in scanned else ""].append(path)
    for (pattern, role), paths in groups.items():
        evidence = scanned[paths[0]].evidence if role else ()
        yield {"pattern": pattern, "count": f"{len(paths):,}", "role": role, "evidence": evidence}


def _loading(kind: type, base: str | None, source: str) -> dict[str, str]:
    """Return the lines of Python that load the base model and the adapter."""
    quoted = json.dumps  # Python reads the escapes of JSON
    arguments = [quoted(source)]
    if source.startswith("hub:"):
        folder = HubFolder.parse(source)
        named = {"revision": folder.revision, "subfolder": folder.subfolder}
        arguments = [quoted(folder.repo)]
        arguments += (f"{name}={quoted(value)}" for name, value in named.items() if value)
    if base and kind.__module__.startswith("transformers."):
        imports = f"from transformers import {kind.__name__}\n\n"
        build = f"{kind.__name__}.from_pretrained({quoted(base)})"
    else:
        imports, build = "", f"...  # the {kind.__name__} it was made for"
    return {"imports": imports, "model": build, "source": quoted(source), "peft_source": ", ".join(arguments)}


def as_text(text: str) -> str:
    """Return text from outside, such as a name or a reason, as one line without markup."""
    line = MARKUP.sub(r"\\\g<0>", " ".join(_printable(text).split()))
    return NUMBERED.sub(r"\1\\\2", line)


def as_code(value: object) -> str:
    """Return a value as a code span for the cell of a table; a list as one span per item."""
    if isinstance(value, list | tuple):
        return ", ".join(map(as_code, value)) or "none"
    shown = _printable(value if value and isinstance(value, str) else repr(value)).replace("|", r"\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    padding = " " if shown.strip(" ") and {shown[0], shown[-1]} & {"`", " "} else ""  # a parser takes one off again
    return f"{fence}{padding}{shown}{padding}{fence}"


def _printable(text: str) -> str:
    """Return text with unprintable characters, such as line breaks, escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
