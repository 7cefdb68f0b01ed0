"""PEFT's forms of a configuration: its own objects, dictionaries and files, read and written."""

import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field, asdict, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from ..errors import AdapterUnreadable, InvalidConfig, TargetsNotFound
from ..warn import warn
from .checks import CHANGING_THE_BASE, REPEATED_ON_LOAD, Constant, Names, UnknownField, check_known, invalid, lacking
from .hub.transfer import CONFIG, locate

if TYPE_CHECKING:
    from .config import AdapterConfig

METHODS: dict[str, type["AdapterConfig"]] = {}
"""The configurations of the methods that loradar injects itself, by PEFT's names."""
NOT_KEPT = ("runtime_config",)
"""Fields of a running process, which PEFT keeps out of dictionaries and files."""


class PeftForms:
    """The methods that ``peft.PeftConfig`` has beside its fields.

    Where peft is imported, ``isinstance`` takes a configuration for one of peft's classes, which trainers and launchers
    check; ``type`` does not.
    """

    method: ClassVar[str]
    """PEFT's name of the method, as text."""
    is_prompt_learning = False
    is_adaption_prompt = False
    _custom_modules = None  # peft reads it when it adapts with a configuration of loradar's
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __init_subclass__(cls) -> None:
        if "method" in cls.__dict__:
            METHODS[cls.method] = cast("type[AdapterConfig]", cls)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """A class of peft's where peft is imported, whose call makes one of loradar's (``dataclasses.replace``)."""
        own: Any = type(self)
        theirs = getattr(sys.modules.get("peft"), own.__name__, None)
        return type(self) if theirs is None else _stand_in(own, theirs)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as an instance of ``type(self)``, not of ``__class__``."""
        return object.__new__, (type(self),), self.__dict__

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, with copies of their values, as in PEFT."""
        return {name: value for name, value in asdict(self).items() if name not in NOT_KEPT}

    def to_peft_dict(self) -> dict[str, Any]:
        """Return the content of ``adapter_config.json`` for peft 0.21.2."""
        return {name: _as_json(value) for name, value in self.to_dict().items()}

    def save_pretrained(self, save_directory: str | PathLike[str], **others: Any) -> None:
        """Write ``adapter_config.json`` into a folder.

        Args:
            save_directory: The folder, made if it is missing.
            others: ``auto_mapping_dict``: the class of the base model, for the field ``auto_mapping``.

        Raises:
            AdapterUnreadable: If the folder cannot be written.
            InvalidConfig: If an argument is unknown, or a field was changed to an impossible value.
        """
        check_known(others, ["auto_mapping_dict"], "save_pretrained of a configuration")
        data = PeftForms.to_peft_dict(type(self)(**self.to_dict()))
        if (mapping := others.get("auto_mapping_dict")) is not None:
            data["auto_mapping"] = mapping
        folder = Path(save_directory)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / CONFIG).write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        except OSError as error:
            raise unreadable(folder, f"cannot be written: {error.strerror}") from error

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | PathLike[str], subfolder: str | None = None, **others: Any
    ) -> "AdapterConfig":
        """Read the ``adapter_config.json`` of a folder, ours or PEFT's, or of a repo: ``hub:org/repo[@revision]``.

        The file decides the method, as in PEFT: of a file of IA3 ``LoraConfig`` makes an ``IA3Config``.

        Args:
            pretrained_model_name_or_path: The folder, or the reference to the hub.
            subfolder: Folder in it.
            others: Options of a download, as ``PeftModel.from_pretrained``: ``revision``, ``token``...

        Raises:
            HubFailed: If it cannot be downloaded.
            AdapterUnreadable: If the file is missing or damaged.
            InvalidConfig: If it is of another method, has an invalid value, or uses a feature that loradar lacks.
        """
        options = {**others, "subfolder": subfolder}
        method = "from_pretrained of a configuration"
        return read_config(locate(pretrained_model_name_or_path, method, options, (CONFIG,)) / CONFIG)

    @classmethod
    def from_json_file(cls, path_json_file: str | PathLike[str]) -> dict[str, Any]:
        """Return the content of an ``adapter_config.json``, without fields of the process that wrote it, as in PEFT.

        Raises:
            AdapterUnreadable: If it is missing or damaged.
        """
        data = read_json(Path(path_json_file))
        if dropped := [name for name in NOT_KEPT if name in data]:
            warn(f"{path_json_file} holds {', '.join(dropped)}, which is ignored: it is of the process that wrote it.")
        return {name: value for name, value in data.items() if name not in dropped}

    @classmethod
    def from_peft_type(cls, **fields: Any) -> "AdapterConfig":
        """Return a configuration of the method that ``peft_type`` names; of this class without it.

        Raises:
            InvalidConfig: If it is another method, or a field is unknown, impossible or a feature that loradar lacks.
        """
        kind = _class_of(fields.get("peft_type", getattr(cls, "method", "LORA")))
        return kind(**fields)


def check_fields(given: Iterable[str], own: type["AdapterConfig"]) -> None:
    """Reject names that are no fields of a configuration, with the method that has them, if one has."""
    known = _field_names(cast("Any", own))  # to mypy no class is hashable whose instances are not
    for name in (name for name in given if name not in known):
        if way_out := _owner_of(name, known):
            raise UnknownField(f"{own.__name__} has no field {name!r}{way_out}", field=name)
        check_known([name], known, own.__name__)


@lru_cache  # for each field that is set, and a load sets 170
def _field_names(own: type["AdapterConfig"]) -> frozenset[str]:
    return frozenset(each.name for each in fields(own))


def _owner_of(name: str, known: Collection[str]) -> str:
    """Return a clause on the method that has a field, of loradar's or PEFT's, or on the rank; empty if none has."""
    for kind in METHODS.values():
        if name in kind.__dataclass_fields__:
            return f", {kind.__name__} has it."
    mapping = getattr(sys.modules.get("peft.mapping"), "PEFT_TYPE_TO_CONFIG_MAPPING", {})
    found = [str(method.value) for method, kind in mapping.items() if name in kind.__dataclass_fields__]
    if found:
        method = repr(found[0]) if len(found) == 1 else "METHOD"
        way_out = f"loradar.auto_config(model, {method}, {name}=...) makes a configuration for peft."
        return f", PEFT's {', '.join(found)} have it: {way_out}"
    return ". The rank is 'r', by layers 'rank_pattern'." if "rank" in name.split("_") and "r" in known else ""


@lru_cache
def _stand_in(own: Callable[..., Any], theirs: type) -> type:
    made: type = type(theirs.__name__, (theirs,), {"__new__": lambda _, **values: own(**values)})
    return made


def as_config(given: Any) -> "AdapterConfig":
    """Return the configuration, or loradar's with its values if it is a ``LoraConfig`` or an ``IA3Config`` of peft's.

    Raises:
        InvalidConfig: If it is no configuration, of another method, or uses a feature that loradar lacks.
    """
    if isinstance(given, PeftForms):
        return cast("AdapterConfig", given)
    if isinstance(given, type):
        raise InvalidConfig(f"{given.__name__} is a class, not a configuration: call it, {given.__name__}().")
    owner = f"{type(given).__module__.partition('.')[0]}.{type(given).__qualname__}"
    owner = f"class {owner.removeprefix('builtins.')}"
    method = getattr(given, "peft_type", None)
    if method is None or not is_dataclass(given):
        way_out = "give a LoraConfig or an IA3Config, of loradar or of peft."
        way_out = "LoraConfig.from_peft_type(**config) makes one." if isinstance(given, Mapping) else way_out
        raise InvalidConfig(f"config is of {owner}, no configuration of an adapter: {way_out}", given=owner)
    if _text(method) not in METHODS:
        way_out = f"give it to peft.get_peft_model. loradar.auto_config(model, {_text(method)!r}) makes one for a model"
        raise InvalidConfig(f"config is of {owner}, a method that loradar leaves to peft: {way_out}.", given=owner)
    if getattr(given, "_custom_modules", None):
        raise InvalidConfig(f"config is of {owner}, with classes of layers of its own: give it to peft.get_peft_model.")
    values = {each.name: getattr(given, each.name) for each in fields(given)}
    return _from_peft(values, "give this configuration to peft.get_peft_model")


def config_from_peft(data: Mapping[str, Any]) -> "AdapterConfig":
    """Build a configuration from the content of an ``adapter_config.json``.

    Raises:
        InvalidConfig: If it is of another method, has an invalid value, or uses a PEFT feature that loradar lacks.
    """
    return _from_peft({**data, **_check_origin(data)}, "load this adapter with peft")


def _from_peft(data: Mapping[str, Any], way_out: str) -> "AdapterConfig":
    """Return a configuration with the values of PEFT's fields that have an effect, if loradar has what they ask for."""
    config_class = _class_of(data.get("peft_type", "LORA"))
    own = {each.name: each.metadata for each in fields(config_class)}
    for name, value in data.items():
        if name not in own and name not in NOT_KEPT and value:
            raise invalid(name, value, "is unknown to peft 0.21.2 and may change the adapter: load it with peft.")
        if name in own and "lacks" in own[name] and value != own[name]["lacks"]:
            raise lacking(name, value, way_out)
    how = data.get("init_lora_weights")
    given = {
        name: value
        for name, value in data.items()
        if name in own and not own[name].get("is_idle") and own[name].get("qualifies", how) == how
    }
    return config_class(**{name: value for name, value in given.items() if name not in NOT_KEPT})


def _class_of(peft_type: object) -> type["AdapterConfig"]:
    found = METHODS.get(_text(peft_type))
    if found is None:
        message = f"peft_type={_text(peft_type)!r} is not supported: only {' and '.join(METHODS)} adapters load."
        raise InvalidConfig(f"{message} For other methods, use peft.")
    return found


def _check_origin(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the initialisation to state for trained factors, which load however they began on an unchanged base."""
    how = data.get("init_lora_weights")
    if not isinstance(how, str) or how.lower() in REPEATED_ON_LOAD:
        return {}
    if how.lower().startswith(CHANGING_THE_BASE):
        way_out = (
            "cannot be loaded here: its factors belong to base weights that PEFT changed when it made them. Load it "
            "with peft, and save it there with path_initial_model_for_weight_conversion, as an ordinary LoRA."
        )
        raise invalid("init_lora_weights", how, way_out)
    return {"init_lora_weights": True}


# Files


def read_config(path: Path) -> "AdapterConfig":
    """Read an ``adapter_config.json``.

    Raises:
        AdapterUnreadable: If it is missing or not in its format.
        InvalidConfig: If it is of another method, has an invalid value, or uses a PEFT feature that loradar lacks.
    """
    data = read_json(path)
    with naming(path):
        return config_from_peft(data)


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a configuration's file.

    Raises:
        AdapterUnreadable: If it is missing, or no JSON object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise unreadable(path, "is missing. Give the folder that save_pretrained wrote") from None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: broken JSON or broken UTF-8
        raise unreadable(path, f"is not readable JSON ({error})") from error
    if not isinstance(data, dict):
        raise unreadable(path, f"holds a {type(data).__name__}, not an adapter configuration")
    return data


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the path of a file in front of the errors raised inside of a ``with`` block.

    Raises:
        AdapterUnreadable: As raised inside, with the file named.
        InvalidConfig: As raised inside, with the file named.
    """
    try:
        yield
    except (AdapterUnreadable, InvalidConfig, TargetsNotFound) as error:
        if str(path) in error.message:
            raise
        raise type(error)(f"{path}: {error.message}", **error.details) from error


def unreadable(path: Path, why: str) -> AdapterUnreadable:
    """Return the error for a file or a folder."""
    return AdapterUnreadable(f"{path} {why}.", path=str(path))


def _as_json(value: object) -> object:
    if isinstance(value, Names):
        return [*value]
    return value.value if isinstance(value, Enum | Constant) else value


def _text(value: object) -> str:
    return str(getattr(value, "value", value))
