"""The checks of a configuration's fields: each returns the value to keep, or raises one line with the way out."""

import math
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from enum import Enum
from importlib import import_module
from typing import Any

from ..data import read_facts
from ..errors import InvalidConfig, quoted
from ..extras import require
from ..similar_names import nearest
from ..warn import warn

FACTS = "adapter_fields.toml"
BIASES = ("none", "all", "lora_only")
INITIALISATIONS = (True, False, "gaussian", "orthogonal", "pissa", "olora", "corda", "loftq", "lora_ga", "eva", "mica")
PISSA_IN_STEPS = re.compile(r"pissa_niter_[1-9]\d*")
CHANGING_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Beginnings of PEFT's initialisations that change the base weights too: the factors belong to the changed ones."""
REPEATED_ON_LOAD = ("gaussian", "pissa", "olora", "loftq", "mica")
"""Initialisations that are kept on loading; those that change the base weights do so in the same way again."""
COUNTED_BY_NO_BUDGET = (
    *("use_dora", "lora_bias", "bias", "trainable_token_indices", "layer_replication", "modules_to_save"),
    *("rank_pattern", "velora_config", "monteclora_config", "kasa_config", "use_bdlora", "use_qalora"),
)
"""Fields by which an adapter trains more or fewer parameters than plain LoRA of one rank."""
PAIR = 2
ALL_LINEAR = "all-linear"
"""PEFT's shorthand for every linear layer; ``injection.plan`` resolves it."""


class Names(set[str]):
    """Names of modules: a set, as in PEFT's configurations, that keeps the order in which they were given."""

    _given: tuple[str, ...] = ()

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._given = tuple(names)
        super().__init__(self._given)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in their order; those added later come last, sorted."""
        yield from (name for name in self._given if name in self)
        yield from sorted({*super().__iter__()}.difference(self._given))

    def __repr__(self) -> str:
        """Show a set."""
        return f"{{{quoted(self)}}}" if self else "set()"


class Constant(str):
    """Text that equals the member of an enum of peft's, and has its value, where peft is not imported."""

    __slots__ = ()

    @property
    def value(self) -> str:
        """The text."""
        return str(self)


def _as_constant(enum: str, name: str) -> str:
    """Return the member of one of peft's enums, or a constant that equals it where peft is not imported."""
    known = getattr(sys.modules.get("peft"), enum, None)
    member: str = Constant(name) if known is None else known(name)
    return member


def invalid(field: str, value: object, why: str) -> InvalidConfig:
    """Return the error for the value of one field."""
    return InvalidConfig(f"{field}={value!r} {why}", field=field, value=repr(value))


def lacking(field: str, value: object, way_out: str) -> InvalidConfig:
    """Return the error for a feature of PEFT's that loradar does not have."""
    return invalid(field, value, f"is a feature of PEFT that loradar lacks: {way_out}.")


class UnknownField(InvalidConfig, TypeError):
    """A field or an argument that there is not, for which Python and PEFT raise a ``TypeError``."""


def check_known(given: Collection[str], known: Collection[str], owner: str = "LoraConfig") -> None:
    """Reject field names that the configuration class ``owner`` does not have."""
    for name in given:
        if name not in known:
            near = nearest(name, known, limit=3)
            way_out = f"Closest: {quoted(near)}." if near else f"The fields are: {', '.join(sorted(known))}."
            raise UnknownField(f"{owner} has no field {name!r}. {way_out}", field=name)


def _accepting(accepts: Callable[[Any], bool], way_out: str) -> Callable[[str, Any], Any]:
    """Return the check of a field whose value stays as it is if ``accepts`` accepts it."""

    def check(name: str, value: Any) -> Any:
        if not accepts(value):
            raise invalid(name, value, way_out)
        return value

    return check


def as_python(value: Any) -> Any:
    """Return numpy's scalars as Python's, which JSON can hold, alone, in a dictionary or in a list."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return value.item()
    if isinstance(value, dict):
        return {key: as_python(each) for key, each in value.items()}
    return [as_python(each) for each in value] if type(value) is list else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


check_rank = _accepting(
    lambda value: _is_number(value) and isinstance(value, int) and value > 0,
    "is not a rank: give a positive integer such as 8.",
)
check_positive = _accepting(
    lambda value: _is_number(value) and math.isfinite(value) and value > 0,
    "is not usable: give a number above 0, such as 16.",
)
check_probability = _accepting(  # at 1 nothing would ever reach the adapter
    lambda value: _is_number(value) and 0 <= value < 1,
    "is no dropout probability: give a number from 0 up to, not including, 1.",
)
check_flag = _accepting(lambda value: isinstance(value, bool), "is not a boolean: give True or False.")
check_mapping = _accepting(
    lambda value: value is None or isinstance(value, Mapping), "is not a mapping: give a dictionary or None."
)
check_text = _accepting(lambda value: value is None or isinstance(value, str), "is not text: give a string or None.")


def check_choice(field: str, value: object, choices: tuple[Any, ...]) -> Any:
    """Check a value that is one of ``choices``."""
    for known in choices:
        if type(value) is type(known) and value == known:
            return known
    raise invalid(field, value, f"is not supported: give one of {', '.join(map(repr, choices))}.")


def check_initialisation(field: str, value: object) -> bool | str:
    """Check an initialisation of the factors; PEFT accepts ``Gaussian`` in any case."""
    name = value.lower() if isinstance(value, str) else value
    if isinstance(name, str) and PISSA_IN_STEPS.fullmatch(name):
        return name
    found: bool | str = check_choice(field, name, INITIALISATIONS)
    return found


def check_task(field: str, value: object) -> str | None:
    """Check a PEFT task type, given as text or as PEFT's enum; return PEFT's, or text that equals it."""
    name = value.value if isinstance(value, Enum | Constant) else value
    if name is None:
        return None
    if not isinstance(name, str) or name not in task_heads():
        message = f"Invalid task type: {name!r}. Must be one of the following task types: {', '.join(task_heads())}."
        raise InvalidConfig(f"{message} {field}=None states none.", field=field, value=repr(name))
    return _as_constant("TaskType", name)


def check_method(field: str, value: object, method: str) -> str:
    """Check the method of a configuration, of which its class has one; return PEFT's enum, or text that equals it."""
    name = getattr(value, "value", value)
    if name != method:
        raise invalid(field, name, f"is another method than {method}: leave it out.")
    return _as_constant("PeftType", method)


def check_lacking(field: str, value: object, default: object) -> object:
    """Check a field of a feature that loradar lacks, which has its default alone."""
    if value != default:
        shown = repr(value) if isinstance(value, bool | int | str | list) else "..."
        way_out = f"peft.get_peft_model(model, loradar.auto_config(model, {field}={shown})) has it"
        raise lacking(field, value, way_out)
    return deepcopy(default)


def check_options(field: str, value: Any, class_name: str) -> Any:
    """Check the options of a variant or an initialisation of PEFT's: its object, or a dictionary; return its object.

    Raises:
        MissingExtra: If peft is not installed.
    """
    if value is None:
        return None
    require("peft", "peft")
    own = getattr(import_module("peft.tuners.lora.config"), class_name)
    if isinstance(value, Mapping):
        computed = {each.name for each in fields(own) if not each.init}  # in files, as PEFT writes them
        try:
            value = own(**{name: each for name, each in value.items() if name not in computed})
        except (TypeError, ValueError) as error:
            raise invalid(field, value, f"makes no {class_name} ({error}): correct it.") from error
    if not isinstance(value, own):
        raise invalid(field, value, f"is no {class_name} of peft's, nor a dictionary of its fields: give one, or None.")
    return value


def check_bits(field: str, value: Any) -> dict[str, Any]:
    """Check the options of LoftQ: a dictionary, or PEFT's object, of which the dictionary is returned."""
    given = {**value} if isinstance(value, Mapping) else {**getattr(value or object, "__dict__", {})}
    if value and not {"loftq_bits", "loftq_iter"} <= {*given}:
        raise invalid(field, value, "lacks loftq_bits or loftq_iter: give {'loftq_bits': 4, 'loftq_iter': 1}.")
    return given if value else {}


def check_idle(field: str, value: object, default: object) -> object:
    """Check a field that only qualifies a feature that loradar lacks; warn of any value but the default."""
    if value not in (None, default):
        warn(f"{field}={value!r} has no effect: it only qualifies a feature of PEFT that is not in use.")
    return deepcopy(default)


@dataclass
class RuntimeConfig:
    """PEFT's ``LoraRuntimeConfig``, with its default."""

    ephemeral_gpu_offload: bool = False


def check_runtime(field: str, value: Any) -> RuntimeConfig:
    """Check the options of a running process, peft's object or a dictionary; loradar has none but the default."""
    given = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
    for name, option in given.items():
        if option:
            raise lacking(f"{field}.{name}", option, "leave it out, or adapt with peft.get_peft_model")
    return RuntimeConfig()


def check_names(field: str, value: object) -> list[str] | None:
    """Check names; return a list."""
    if isinstance(value, str):
        raise invalid(field, value, f"is a string: give a list, [{value!r}].")
    if value is None:
        return None
    if not isinstance(value, Collection) or not all(isinstance(name, str) and name for name in value):
        raise invalid(field, value, "is not a list of names: give non-empty strings.")
    return sorted(value) if type(value) in (set, frozenset) else [*value]


def check_targets(field: str, value: object) -> Names | str | None:
    """Check path suffixes, returned as a set, or one regex."""
    if isinstance(value, str):
        return value if value.lower() == ALL_LINEAR else check_regex(field, value)
    return None if value is None else Names(check_names(field, value) or ())


def check_list_names(field: str, value: object) -> list[str] | str | None:
    """Check the names of lists of blocks: one regex, or several."""
    return check_regex(field, value) if isinstance(value, str) else check_names(field, value)


def check_regex(field: str, value: str) -> str:
    """Check a regex."""
    try:
        re.compile(value)
    except re.error as error:
        raise invalid(field, value, f"is not a valid regex ({error}): correct it or give a list.") from None
    return value


def check_patterns(field: str, value: object, check: Any) -> dict[str, Any]:
    """Check a mapping from regexes to values that each pass ``check``."""
    if not isinstance(value, Mapping) or not all(isinstance(pattern, str) for pattern in value):
        raise invalid(field, value, "is not a mapping: give {pattern: value}.")
    return {check_regex(field, pattern): check(f"{field}[{pattern!r}]", each) for pattern, each in value.items()}


def check_indices(field: str, value: object) -> list[int] | int | None:
    """Check a block index or a list of them; return ``None`` for an empty list."""
    if value is None:
        return None
    many = [value] if isinstance(value, int) else value
    if not isinstance(many, Collection) or not all(type(each) is int and each >= 0 for each in many):
        raise invalid(field, value, "is no list of block indices: give integers from 0.")
    return value if isinstance(value, int) else [*many] or None


def task_heads() -> dict[str, tuple[str, ...]]:
    """Return the names of the heads that are saved in full, per task type."""
    return {task: tuple(names) for task, names in read_facts(FACTS)["task_heads"].items()}


def check_budget(config: Any, budget: object) -> None:
    """Reject fields of a configuration, of loradar or of peft, that train other numbers than a budget counts.

    Raises:
        InvalidConfig: Naming the field, its value and the way out.
    """
    for name in COUNTED_BY_NO_BUDGET if budget is not None else ():
        if (value := getattr(config, name, None)) and value != "none":
            why = f"counts plain LoRA and the heads that it needs, and {name}={value!r} trains another number"
            raise InvalidConfig(f"budget={budget!r} {why}: leave it out, or give r instead.", budget=budget)


def check_ranges(field: str, value: object) -> list[list[int]] | None:
    """Check a list of ranges of blocks, each a first and a last block, the last one excluded."""
    if value is None:
        return None
    pairs = [[*pair] if isinstance(pair, Sequence) else [] for pair in value] if isinstance(value, Sequence) else []
    if not pairs or not all(map(_is_range, pairs)):
        raise invalid(field, value, "is no list of ranges of blocks: give pairs such as [(0, 4), (2, 5)], or None.")
    return pairs


def _is_range(pair: list[Any]) -> bool:
    return len(pair) == PAIR and all(type(each) is int for each in pair) and 0 <= pair[0] < pair[1]


def check_tokens(field: str, value: object) -> dict[str, list[int]] | list[int] | None:
    """Check the rows of embeddings that train: a list of them, or one by the name of each module."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        if not value or not all(isinstance(name, str) and name for name in value):
            raise invalid(field, value, "names no module: give lists by names, such as {'embed_tokens': [0, 1]}.")
        return {name: check_rows(f"{field}[{name!r}]", rows) for name, rows in value.items()}
    return check_rows(field, value)


def check_rows(field: str, value: object) -> list[int]:
    """Check a list of token indices."""
    rows = [*value] if isinstance(value, Collection) and not isinstance(value, str | Mapping) else []
    if not rows or not all(type(each) is int and each >= 0 for each in rows):
        raise invalid(field, value, "is no list of token indices: give integers from 0, or leave it out (None).")
    if len({*rows}) < len(rows):
        raise invalid(field, value, "names a token twice, and each has one row: name it once.")
    return rows
