"""What a model says of itself: identity, models inside it, declared heads, outline.

The one file that asks foreign modules with ``getattr``; every answer is checked for its type, because a user's module
may use the same names for anything.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import nn

from ...domain.scans import Architecture
from ...domain.vocabulary import Library, Tower
from .data_files import read_facts
from .layers import repeats_blocks
from .outline import Piece, draw_outline


@dataclass(frozen=True, slots=True)
class SubModel:
    """A module that carries a model configuration of its own: the model itself, or a model inside it.

    Attributes:
        path: Where it stands; empty for the model itself.
        config_class: Class name of its configuration; the same class means the same model.
        towers: Towers its inputs belong to, as its class declares and takes them; empty if it does not say.
        main_tower: Tower of its main input, if that can be told.
        base_path: Where its headless base stands; equal to ``path`` if it has no head.
        field_tower: Tower named by the field of the outer configuration that holds its own.
        outputs: Towers of what it generates; empty if it does not generate.
        heads: Paths of the layers it declares as its output embeddings.
    """

    path: str
    config_class: str
    towers: frozenset[Tower]
    main_tower: Tower | None
    base_path: str
    field_tower: Tower | None = None
    outputs: frozenset[Tower] = frozenset()
    heads: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model says of itself.

    Attributes:
        architecture: Its identity, without fingerprint.
        sub_models: Models with a configuration of their own, parents first.
        language_heads: Paths of the layers that write logits over the vocabulary.
        task_heads: Paths of declared classifiers.
        containers: Paths of lists and dictionaries of modules, which are never called themselves.
        is_vision_library: Whether everything its library holds is a vision model.
        outline: What stands outside the repeated blocks, if several models are inside; else nothing.
        configuration: The values of its configuration, by name; empty if it has none.
    """

    architecture: Architecture
    sub_models: tuple[SubModel, ...]
    language_heads: frozenset[str]
    task_heads: frozenset[str]
    containers: frozenset[str]
    is_vision_library: bool
    outline: tuple[Piece, ...] = ()
    configuration: dict[str, Any] = field(default_factory=dict)


def collect_facts(model: nn.Module) -> ModelFacts:
    """Collect what ``model`` says of itself, without changing it."""
    paths = {id(module): path for path, module in model.named_modules()}
    architecture = identify(model)
    sub_models = tuple(_sub_models(model, paths))
    is_composite = len({sub_model.config_class for sub_model in sub_models}) > 1
    return ModelFacts(
        architecture=architecture,
        sub_models=sub_models,
        language_heads=frozenset(_paths_of(model, "get_output_embeddings", paths)),
        task_heads=frozenset(_paths_of(model, "get_classifier", paths)) - {""},
        containers=frozenset(p for p, m in model.named_modules() if isinstance(m, nn.ModuleList | nn.ModuleDict)),
        is_vision_library=architecture.library == "timm",
        outline=draw_outline(model) if is_composite else (),
        configuration=_values(getattr(model, "config", None)),
    )


def identify(model: nn.Module) -> Architecture:
    """Return which architecture a live model is, without its fingerprint.

    A transformers model is known by its configuration's ``model_type``, a timm model by its pretrained configuration,
    a diffusers model by its class; anything else is the user's own class.
    """
    library, name = _identity(model)
    return Architecture(library, name, type(model).__name__, _version(library, model))


def is_configuration(subject: object) -> bool:
    """Tell whether something is a transformers configuration; a user's own may leave its model type empty."""
    return isinstance(getattr(subject, "model_type", None), str)


def settings_of(model: nn.Module) -> dict[str, Any]:
    """Return what a model says it was built with; empty if it does not say."""
    return list_settings(getattr(model, "config", None))


def list_settings(settings: Any) -> dict[str, Any]:
    """Return by name what is set in a transformers configuration, or in the arguments that diffusers keeps."""
    return dict(settings) if isinstance(settings, Mapping) else _values(settings)


def _values(config: Any) -> dict[str, Any]:
    """Return the values of a transformers configuration; its depth may be a property, which is no value of it."""
    if not is_configuration(config) or not callable(getattr(config, "to_dict", None)):
        return {}
    depth = getattr(config, "num_hidden_layers", None)
    return {**config.to_dict(), **({} if depth is None else {"num_hidden_layers": depth})}


def _identity(model: nn.Module) -> tuple[Library, str]:
    package = type(model).__module__.partition(".")[0]
    config: Any = getattr(model, "config", None)
    if is_configuration(config) and config.model_type:
        return "transformers", config.model_type
    pretrained = getattr(model, "pretrained_cfg", None)
    architecture = getattr(pretrained, "architecture", None) or (
        pretrained.get("architecture") if isinstance(pretrained, dict) else None
    )
    if isinstance(architecture, str) and architecture:
        return "timm", architecture
    if package == "diffusers":
        return "diffusers", type(model).__name__
    return "torch", f"{type(model).__module__}.{type(model).__qualname__}"


def _version(library: Library, model: nn.Module) -> str | None:
    package = type(model).__module__.partition(".")[0] if library == "torch" else library
    try:
        return version(package)
    except PackageNotFoundError:
        return None  # a user's own script has no version


def _sub_models(model: nn.Module, paths: dict[int, str]) -> Iterator[SubModel]:
    """Yield the models inside ``model``; those around the current one wait on a stack, innermost last."""
    around: list[tuple[str, Any]] = []
    for path, module in model.named_modules():
        config = module.__dict__.get("config")
        if not is_configuration(config):
            continue
        if not hasattr(type(module), "main_input_name") and not any(map(repeats_blocks, module.modules())):
            continue  # an attention or a norm that keeps the configuration at hand is no model
        while around and around[-1][0] and not path.startswith(f"{around[-1][0]}."):
            around.pop()
        base = getattr(module, "base_model", module)
        yield SubModel(
            path=path,
            config_class=type(config).__name__,
            towers=_input_towers(module.__class__),
            main_tower=_main_tower(module, config),
            base_path=paths.get(id(base), path),
            field_tower=_field_tower(config, [outer for _, outer in reversed(around)]),
            outputs=_towers_of(getattr(type(module), "output_modalities", ())),
            heads=frozenset(_paths_of(module, "get_output_embeddings", paths)),
        )
        around.append((path, config))


@cache
def _input_towers(model_class: type) -> frozenset[Tower]:
    """Return the towers of the inputs a class takes.

    ``input_modalities`` is inherited from whatever model the class was derived from, and is ``"text"`` on the base
    class, so the parameters of ``forward`` prove more; but tokens need not be text where the class says so itself.
    """
    declared = getattr(model_class, "input_modalities", ())
    towers = _towers_of(declared)
    taken = _known_inputs(_parameters(model_class))
    if len(towers) == 1 and declared != "text" and (not taken or towers <= taken or _says_so_itself(model_class)):
        return towers
    if taken or len(towers) > 1:
        return taken or towers
    main_input = _tower_of_main_input(model_class)
    return frozenset({main_input} if main_input and main_input != "language" else ())


def _says_so_itself(model_class: type) -> bool:
    """Tell whether modalities were declared with a main input the class takes, not for an ancestor with another."""
    names = ("input_modalities", "main_input_name")
    modality, main = ([name in vars(base) for base in model_class.__mro__].index(True) for name in names)
    return modality <= main and getattr(model_class, "main_input_name", "") in _parameters(model_class)


def _towers_of(words: object) -> frozenset[Tower]:
    known: dict[str, Tower] = read_facts("towers.toml")["modalities"]
    listed = (words,) if isinstance(words, str) else words if isinstance(words, list | tuple) else ()
    return frozenset(known[word] for word in listed if word in known)


def _known_inputs(names: Iterable[str]) -> frozenset[Tower]:
    known: dict[str, Tower] = read_facts("towers.toml")["inputs"]
    return frozenset(known[name] for name in names if name in known)


def _parameters(model_class: type) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(model_class.forward).parameters)  # type: ignore[attr-defined]  # any module's
    except (TypeError, ValueError):
        return ()  # a forward made outside Python shows no parameters


def _field_tower(config: Any, outer_configs: list[Any]) -> Tower | None:
    """Return the tower named by the fields of the nearest outer configuration that hold one of this class."""
    known: dict[str, Tower] = read_facts("towers.toml")["fields"]
    for outer in outer_configs:
        fields = [name for name in _sub_configs(outer) if type(getattr(outer, name, None)) is type(config)]
        if fields and type(outer) is not type(config):
            towers = {known[word] for name in fields for word in name.split("_") if word in known}
            return towers.pop() if len(towers) == 1 else None
    return None


def _sub_configs(config: Any) -> Iterable[str]:
    declared = getattr(type(config), "sub_configs", None)
    return declared if isinstance(declared, dict) else ()


def _main_tower(module: nn.Module, config: Any) -> Tower | None:
    """Return the tower of the main input: by its name on a model class, else by what the configuration sizes.

    Every model class inherits ``input_ids`` as its main input; it says something only where ``forward`` takes them.
    """
    main_input = _tower_of_main_input(type(module))
    if main_input and (main_input != "language" or "input_ids" in _parameters(type(module))):
        return main_input
    sized: dict[str, Tower] = read_facts("towers.toml")["configuration"]
    by_size = (tower for name, tower in sized.items() if getattr(config, name, None) is not None)
    return next(by_size, main_input)


def _tower_of_main_input(model_class: type) -> Tower | None:
    known: dict[str, Tower] = read_facts("towers.toml")["inputs"]
    return known.get(str(getattr(model_class, "main_input_name", "")))


def _paths_of(model: nn.Module, getter: str, paths: dict[int, str]) -> Iterator[str]:
    """Yield the path of what a head getter returns, if it returns a module of this model.

    A user's own method of the same name may be left undefined or take arguments: then it declares no head.
    """
    method = getattr(model, getter, None)
    if not callable(method):
        return
    try:
        found = method()
    except (NotImplementedError, TypeError):
        return
    for module in found if isinstance(found, list | tuple | nn.ModuleList) else (found,):
        if isinstance(module, nn.Module) and id(module) in paths:
            yield paths[id(module)]
