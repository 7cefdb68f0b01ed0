"""What a model says of itself: identity, models inside it, declared heads.

The one file that asks foreign modules with ``getattr``; every answer is checked for its type, because a user's module
may use the same names for anything.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import nn

from ..records import Architecture
from ..vocabulary import Library, Tower
from .layers import repeats_blocks
from .words import read_facts


@dataclass(frozen=True, slots=True)
class SubModel:
    """A module that carries a model configuration of its own: the model itself, or a model inside it.

    Attributes:
        path: Where it stands; empty for the model itself.
        config_class: Class name of its configuration; the same class means the same model.
        towers: Towers its inputs belong to, as its class declares them; empty if it does not say.
        main_tower: Tower of its main input, if that can be told.
        base_path: Where its headless base stands; equal to ``path`` if it has no head.
    """

    path: str
    config_class: str
    towers: frozenset[Tower]
    main_tower: Tower | None
    base_path: str


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
    """

    architecture: Architecture
    sub_models: tuple[SubModel, ...]
    language_heads: frozenset[str]
    task_heads: frozenset[str]
    containers: frozenset[str]
    is_vision_library: bool


def collect_facts(model: nn.Module) -> ModelFacts:
    """Collect what ``model`` says of itself, without changing it."""
    paths = {id(module): path for path, module in model.named_modules()}
    architecture = identify(model)
    return ModelFacts(
        architecture=architecture,
        sub_models=tuple(_sub_models(model, paths)),
        language_heads=frozenset(_paths_of(model, "get_output_embeddings", paths)),
        task_heads=frozenset(_paths_of(model, "get_classifier", paths)) - {""},
        containers=frozenset(p for p, m in model.named_modules() if isinstance(m, nn.ModuleList | nn.ModuleDict)),
        is_vision_library=architecture.library == "timm",
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
    for path, module in model.named_modules():
        config = module.__dict__.get("config")
        if not is_configuration(config):
            continue
        if not hasattr(type(module), "main_input_name") and not any(map(repeats_blocks, module.modules())):
            continue  # an attention or a norm that keeps the configuration at hand is no model
        base = getattr(module, "base_model", module)
        yield SubModel(
            path=path,
            config_class=type(config).__name__,
            towers=_declared_towers(module),
            main_tower=_main_tower(module, config),
            base_path=paths.get(id(base), path),
        )


def _declared_towers(module: nn.Module) -> frozenset[Tower]:
    """Return the towers of the modalities a class takes.

    ``input_modalities`` defaults to ``"text"`` on the base class, so the bare word proves nothing for a model whose
    main input is something else.
    """
    known = read_facts("transformers.toml")["modalities"]
    declared = getattr(type(module), "input_modalities", ())
    words = (declared,) if isinstance(declared, str) else tuple(declared)
    main_input = _tower_of_main_input(module)
    return frozenset({main_input}) if declared == "text" and main_input else frozenset(map(known.get, words)) - {None}


def _main_tower(module: nn.Module, config: Any) -> Tower | None:
    """Return the tower of the main input: by its name on a model class, else by what the configuration sizes."""
    sized: dict[str, Tower] = read_facts("transformers.toml")["configuration"]
    by_size = (tower for name, tower in sized.items() if getattr(config, name, None) is not None)
    return _tower_of_main_input(module) or next(by_size, None)


def _tower_of_main_input(module: nn.Module) -> Tower | None:
    known: dict[str, Tower] = read_facts("transformers.toml")["inputs"]
    return known.get(str(getattr(type(module), "main_input_name", "")))


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
