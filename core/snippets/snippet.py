"""Write a snippet: the template of a tool, filled with its statement of a mapping."""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import TYPE_CHECKING, Any, ClassVar

from ..data import read_facts
from ..domain.choosing.stored_layers import StoredLayers
from ..domain.layers import Slot
from ..domain.mappings import ArchitectureDetail, Mapping
from ..errors import InvalidRequest
from ..references.knowledge import load
from ..references.words import key_of
from ..schema import Config, schema_config
from .stated_targets import choose_alpha, state
from .tools import FACTS, Form, check_fit, get_tool

if TYPE_CHECKING:
    from jinja2 import Environment

MOST_CHARACTERS = 100
"""Characters of a list in one line of a script."""
LONGEST_MODEL = 512
PLACEHOLDER = "org/model"
"""Model of a snippet where none is known."""


@dataclass(frozen=True, slots=True)
class Snippet:
    """A configuration or a script for a training tool."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (SNIPPET_EXAMPLE,))

    tool: str
    """Name of the tool, such as ``axolotl``."""
    label: str
    """The tool as it writes itself."""
    version: str
    """Version of the tool that the keys and names were checked against."""
    form: Form
    """``python``, ``yaml`` or ``shell``."""
    file: str
    """A name to save it under."""
    text: str
    """The snippet."""
    notes: tuple[str, ...]
    """What the tool cannot state, and what to fill in, in words; comments of the text as well."""


SNIPPET_EXAMPLE: Snippet = Snippet(
    "peft",
    "PEFT",
    "0.21.2",
    "python",
    "train.py",
    'from peft import LoraConfig\n\nconfig = LoraConfig(r=8, target_modules=["q_proj", "v_proj"])\n',
    (),
)


@dataclass(frozen=True)
class Subject:
    """The facts of the model of a mapping.

    Attributes:
        class_name: The model class that was scanned.
        slots: The slots of the architecture, from which follows which layers a name matches.
    """

    class_name: str | None = None
    slots: Sequence[Slot] = ()

    @cached_property
    def stored(self) -> StoredLayers:
        """Its layers one by one, made once for the snippets of all tools."""
        return StoredLayers(self.slots)

    @classmethod
    def of(cls, detail: ArchitectureDetail) -> "Subject":
        """Return the facts of an architecture in the registry."""
        return cls(detail.architecture.class_name, detail.slots)


def write_snippet(
    mapping: Mapping, tool: str, model: str | None = None, *, subject: Subject | None = None, alpha: int | None = None
) -> Snippet:
    """Return a snippet with the targets of a mapping.

    Args:
        mapping: The mapping, as ``lookup`` returns it; its rank is that of the snippet.
        tool: Name of the tool.
        model: The model to train, an id on the hub or a folder; by default the one looked up, else a known one.
        subject: What is known of the model's architecture.
        alpha: ``lora_alpha``; by default in the proportion to the rank that the recommendation starts with.

    Raises:
        UnknownTool: If there is no such tool.
        MethodDoesNotFit: If the tool does not train such a model, or has not the method.
        InvalidRequest: If the model has too many or invisible characters.
    """
    chosen, known = get_tool(tool), subject or Subject()
    reference = f"{mapping.library}:{mapping.name}"
    check_fit(chosen, reference, mapping.peft_type, known.class_name)
    if model is not None and not (0 < len(model) <= LONGEST_MODEL and model.isprintable()):
        message = f"Invalid model {model[:80]!r}: give 1 to {LONGEST_MODEL} visible characters."
        raise InvalidRequest(message, field="model")
    alpha = choose_alpha(mapping) if alpha is None else alpha
    stated = state(mapping, chosen, known.stored, alpha)
    named = model or find_model(mapping)
    notes = (
        *stated.notes,
        *([f"no model of {reference} is known by name: put yours in place of it"] * (named == PLACEHOLDER)),
    )
    template = _environment().get_template(chosen.template)
    context = {
        "mapping": mapping,
        "reference": reference,
        "tool": chosen,
        "model": named,
        "alpha": alpha,
        "values": stated.values,
        "switches": stated.switches,
        "notes": notes,
        **_describe_model(mapping, known),
    }
    text = template.render(context).strip() + "\n"
    return Snippet(chosen.name, chosen.label, chosen.version, chosen.form, chosen.file, text, notes)


def _describe_model(mapping: Mapping, subject: Subject) -> dict[str, object]:
    """Return the facts of the model by which templates load it and choose where to adapt it."""
    return {
        "class_name": _find_class(mapping.library, subject.class_name),
        "own_class": _split_class(mapping.name) if mapping.library == "torch" else None,
        "subfolder": _find_subfolder(mapping.name),
        "has_add_adapter": mapping.name in read_facts(FACTS)["adapted_by_diffusers"]["classes"],
        "has_experts": any(slot.kind == "expert_parameter" for slot in subject.slots),
    }


def find_model(mapping: Mapping) -> str:
    """Return the model of a mapping by name: the one looked up, else the checkpoint with the name most like it."""
    understood = mapping.understood
    given = understood.given if understood else mapping.name.partition("[")[0]
    if "/" in given and mapping.library != "torch":
        return given.partition("@")[0].removeprefix("hub:").removeprefix("timm:").removeprefix("file:")
    if mapping.library == "timm":
        return mapping.name
    reference = f"{mapping.library}:{mapping.name.partition('[')[0]}"
    key = key_of(given.rpartition(":")[2])
    known = [fact.written for fact in load().repos.values() if fact.reference == reference]
    named = [name for name in known if key in key_of(name)]
    if understood and understood.how in {"nickname", "by name", "near name"}:
        known = named  # another model of the architecture is not what was meant
    return min(named or known, key=len, default=PLACEHOLDER)


def _find_subfolder(class_name: str) -> str:
    """Return the folder of a class of diffusers in the repository of a pipeline; empty if it has one of its own."""
    rules = read_facts(FACTS)["subfolder"]
    return next((str(rule["folder"]) for rule in rules if re.search(rule["classes"], class_name)), "")


def _find_class(library: str, class_name: str | None) -> str | None:
    """Return a class that its library exports; the one that takes any type for a class of transformers that is not."""
    if class_name is None or not class_name.isidentifier():
        return None
    facts = load().keys.get(key_of(class_name), ())
    is_known = any(fact.how == "class" and fact.written == class_name for fact in facts)
    is_exported = is_known and class_name not in read_facts(FACTS)["unexported"]["classes"]
    return class_name if library != "transformers" or is_exported else "AutoModel"


def _split_class(name: str) -> tuple[str, str] | None:
    """Return the module and the name of a class of the user's own; ``None`` if it has no name to import it by."""
    module, _, own = name.rpartition(".")
    return (module, own) if module and all(part.isidentifier() for part in name.split(".")) else None


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FunctionLoader, StrictUndefined  # noqa: PLC0415 - a lookup does without

    folder = resources.files("loradar.data") / "snippets"
    # The filters below quote every value: what is written is no HTML.
    environment = Environment(  # noqa: S701
        loader=FunctionLoader(lambda name: (folder / name).read_text("utf-8")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"python": _to_python, "yaml": _to_yaml, "shell": _to_shell, "comment": _to_comment}
    return environment


def _to_python(value: Any) -> str:
    """Return a literal of Python, in double quotes; of a long list, a line for each item."""
    if isinstance(value, dict):
        items = [f"{_to_python(key)}: {_to_python(one)}" for key, one in value.items()]
        return _join("{", items, "}")
    if isinstance(value, list | tuple):
        return _join("[", [_to_python(one) for one in value], "]")
    if not isinstance(value, str):
        return repr(value)
    is_raw = "\\" in value and '"' not in value and value.isprintable() and not value.endswith("\\")
    return f'r"{value}"' if is_raw else json.dumps(value, ensure_ascii=not value.isprintable())


def _join(start: str, items: list[str], end: str) -> str:
    line = f"{start}{', '.join(items)}{end}"
    if len(line) <= MOST_CHARACTERS:
        return line
    inside = "".join(f"        {item},\n" for item in items)
    return f"{start}\n{inside}    {end}"


def _to_yaml(value: Any) -> str:
    """Return a scalar of YAML in one line: plain where that is read back as the same, else in quotes."""
    import yaml  # noqa: PLC0415 - a lookup does without

    text: str = yaml.safe_dump(value, allow_unicode=True, width=2**31, default_flow_style=True)
    return text.removesuffix("\n...\n").strip()


def _to_shell(value: Any) -> str:
    return " ".join(shlex.quote(str(one)) for one in ([value] if isinstance(value, str | int) else value))


def _to_comment(text: str) -> str:
    """Return a text that stays in one comment."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())
