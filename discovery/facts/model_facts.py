"""The facts a model declares: identity, settings, models inside it, heads, outline.

Only this file reads foreign modules with ``getattr``; every value is checked for its type, because a user's module may
use the same names for anything.
"""

import inspect
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import nn

from ...data import read_facts
from ...domain.architectures import Architecture
from ...domain.vocabulary import Library, Tower
from .layers import Part, Site, draw_outline, list_aliases, repeats_blocks, walk
from .wrapped import own_class

CONTAINERS = (nn.ModuleList, nn.ModuleDict)

CAUSAL_FLAGS = ("is_causal", "is_decoder")
"""Attributes by which a module declares that its attention sees no later position, or that it is of a decoder."""


@dataclass(frozen=True, slots=True)
class SubModel:
    """A module that carries a model configuration of its own: the model itself, or a model inside it.

    Attributes:
        path: Where it stands; empty for the model itself.
        config_class: Class name of its configuration; the same class means the same model.
        towers: Towers its inputs belong to, as its class declares and takes them; empty if undeclared.
        main_tower: Tower of its main input, if known.
        base_path: Where its headless base stands; equal to ``path`` if it has no head.
        field_tower: Tower named by the field of the outer configuration that holds its own.
        outputs: Towers of the modalities it generates; empty if it does not generate.
        heads: Paths of the layers it declares as its output embeddings.
        writes_with_head: Whether a class of its file generates text with it inside (LlavaForConditionalGeneration).
        is_causal: Whether attention inside declares itself causal, or part of a decoder.
        is_apart: Whether the field names a part that is trained apart, such as a vocoder.
    """

    path: str
    config_class: str
    towers: frozenset[Tower]
    main_tower: Tower | None
    base_path: str
    field_tower: Tower | None = None
    outputs: frozenset[Tower] = frozenset()
    heads: frozenset[str] = frozenset()
    writes_with_head: bool = False
    is_causal: bool = False
    is_apart: bool = False


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The facts a model declares.

    Attributes:
        architecture: Its identity, without fingerprint.
        sub_models: Models with a configuration of their own, parents first.
        language_heads: Paths of the layers that write logits over the vocabulary.
        task_heads: Paths of declared classifiers.
        containers: Paths of lists and dictionaries of modules, which are never called themselves.
        is_vision_library: Whether everything its library holds is a vision model.
        outline: The parts outside the repeated blocks, if several models are inside; else empty.
        configuration: The values of its configuration, by name; empty if it has none.
        aliases: The first path of each module that stands in a second place, by its path there.
        library_models: Paths of the outermost models of a library in a user's own module.
    """

    architecture: Architecture
    sub_models: tuple[SubModel, ...]
    language_heads: frozenset[str]
    task_heads: frozenset[str]
    containers: frozenset[str]
    is_vision_library: bool
    outline: tuple[Part, ...] = ()
    configuration: dict[str, Any] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    library_models: tuple[str, ...] = ()

    @property
    def has_base(self) -> bool:
        """Whether the model is a task model: it stands around a base model."""
        return bool(self.sub_models) and not self.sub_models[0].path and bool(self.sub_models[0].base_path)

    def list_paths(self, path: str) -> list[str]:
        """Return a path, and those that it has because a module around it stands in a second place."""
        others = (f"{alias}{path[len(first) :]}" for alias, first in self.aliases.items() if _is_below(path, first))
        return [path, *others]

    def is_fresh(self, path: str) -> bool:
        """Return whether a path stands outside the models of a library in a user's own module."""
        return bool(self.library_models) and not any(_is_below(path, model) for model in self.library_models)


def _is_below(path: str, prefix: str) -> bool:
    return f"{path}.".startswith(f"{prefix}.")


def collect_facts(model: nn.Module, sites: Sequence[Site] | None = None) -> ModelFacts:
    """Collect the facts ``model`` declares, unchanged; ``sites`` are its modules, if the caller has them."""
    sites = [*walk(model)] if sites is None else sites
    architecture = identify(model)
    sub_models = tuple(list_sub_models(sites))
    paths = {id(site.module): site.path for site in sites}
    is_composite = len({sub_model.config_class for sub_model in sub_models}) > 1
    return ModelFacts(
        architecture=architecture,
        sub_models=sub_models,
        language_heads=frozenset(_paths_of(model, "get_output_embeddings", paths)),
        task_heads=frozenset(_paths_of(model, "get_classifier", paths)) - {""},
        containers=frozenset(site.path for site in sites if isinstance(site.module, CONTAINERS)),
        is_vision_library=architecture.library == "timm",
        outline=draw_outline(model) if is_composite else (),
        configuration=_values(read_attribute(model, "config")),
        aliases=list_aliases(sites),
        library_models=_find_library_models(sites, [sub_model.path for sub_model in sub_models]),
    )


# --- identity and configuration ---------------------------------------------------------------------------------------


def identify(model: nn.Module) -> Architecture:
    """Return the architecture of a live model, without its fingerprint.

    A transformers model is identified by its configuration's ``model_type``, if the configuration is of transformers; a
    timm model by its pretrained configuration, a diffusers model by its class; anything else is the user's own class.
    """
    model_class = own_class(model)
    package = model_class.__module__.partition(".")[0]
    config = read_attribute(model, "config")
    pretrained = read_attribute(model, "pretrained_cfg")
    timm_name = read_attribute(pretrained, "architecture") or (
        pretrained.get("architecture") if isinstance(pretrained, dict) else None
    )
    library: Library = "torch"
    name = f"{model_class.__module__}.{model_class.__qualname__}"
    if is_configuration(config) and config.model_type and is_of_transformers(config):
        library, name = "transformers", config.model_type
    elif isinstance(timm_name, str) and timm_name:
        library, name = "timm", timm_name
    elif package == "diffusers":
        library, name = "diffusers", model_class.__name__
    try:
        library_version = _read_version(package if library == "torch" else library)
    except PackageNotFoundError:
        library_version = None  # a user's own script has no version
    return Architecture(library, name, model_class.__name__, library_version)


_read_version = cache(version)  # reading a package's metadata takes a millisecond


def read_attribute(owner: object, name: str) -> Any:
    """Return an attribute of a foreign object; ``None`` if it has none, or reading it raises an exception."""
    try:
        return getattr(owner, name, None)
    except Exception:  # noqa: BLE001 - a property or a __getattr__ of others may raise anything
        return None


def is_configuration(subject: object) -> bool:
    """Return whether an object looks like a transformers configuration; a user's own may have an empty model type."""
    return isinstance(read_attribute(subject, "model_type"), str)


def is_of_transformers(config: Any) -> bool:
    """Return whether a configuration's model type is the one that transformers knows by this name.

    Other packages have configurations of their own for a model type that transformers has too, and other layers under
    it. A type that transformers does not know, of a configuration derived from its class, is that of remote code.
    """
    bases = [base for base in type(config).__mro__ if base.__module__.partition(".")[0] == "transformers"]
    if not bases:
        return False
    if type(config) is bases[0] or bases[0].__dict__.get("model_type") == config.model_type:
        return True
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES  # noqa: PLC0415 - a base is of it

    return config.model_type not in CONFIG_MAPPING_NAMES


def settings_of(model: nn.Module) -> dict[str, Any]:
    """Return the settings a model records it was built with; empty if it records none."""
    return list_settings(getattr(model, "config", None))


def list_settings(settings: Any) -> dict[str, Any]:
    """Return by name the settings in a transformers configuration, or in the arguments that diffusers keeps."""
    return dict(settings) if isinstance(settings, Mapping) else _values(settings)


def _values(config: Any) -> dict[str, Any]:
    """Return the values of a transformers configuration; its depth may be a property, which is no value of it."""
    if not is_configuration(config) or not callable(getattr(config, "to_dict", None)):
        return {}
    depth = getattr(config, "num_hidden_layers", None)
    return {**config.to_dict(), **({} if depth is None else {"num_hidden_layers": depth})}


# --- models inside the model ------------------------------------------------------------------------------------------


def list_sub_models(sites: Sequence[Site]) -> Iterator[SubModel]:
    """Yield the models among the modules of one; those around the current one wait on a stack, innermost last."""
    paths = {id(site.module): site.path for site in sites}
    around: list[tuple[str, Any]] = []
    for site in sites:
        path: str = site.path
        module: Any = site.module  # a module of any class
        config = module.__dict__.get("config")
        if not is_configuration(config):
            continue
        if not hasattr(type(module), "main_input_name") and not any(map(repeats_blocks, module.modules())):
            continue  # an attention or a norm that keeps the configuration at hand is no model
        while around and around[-1][0] and not path.startswith(f"{around[-1][0]}."):
            around.pop()
        base = read_attribute(module, "base_model") or module
        words = _field_words(config, [outer for _, outer in reversed(around)])
        known: dict[str, Tower] = read_facts("towers.toml")["fields"]
        towers = {known[word] for word in known.keys() & words}
        yield SubModel(
            path=path,
            config_class=type(config).__name__,
            towers=input_towers(module.__class__),
            main_tower=main_input_tower(module, config),
            base_path=paths.get(id(base), path),
            field_tower=towers.pop() if len(towers) == 1 else None,
            outputs=_towers_of(getattr(type(module), "output_modalities", ())),
            heads=frozenset(_paths_of(module, "get_output_embeddings", paths)),
            writes_with_head=is_part_of_generator(module.__class__),
            is_causal=any(inner.__dict__.get(name) is True for inner in module.modules() for name in CAUSAL_FLAGS),
            is_apart=not words.isdisjoint(read_facts("towers.toml")["apart"]["fields"]),
        )
        around.append((path, config))


@cache
def input_towers(model_class: type) -> frozenset[Tower]:
    """Return the towers of the inputs a class takes.

    ``input_modalities`` is inherited from any model the class was derived from, and is ``"text"`` on the base class,
    so the parameters of ``forward`` prove more; but tokens need not be text where the class itself declares another.
    """
    declared = getattr(model_class, "input_modalities", ())
    towers = _towers_of(declared)
    known: dict[str, Tower] = read_facts("towers.toml")["inputs"]
    taken = frozenset(known[name] for name in _parameters(model_class) if name in known)
    is_single = len(towers) == 1 and declared != "text"
    if is_single and (not taken or towers <= taken or _declares_modalities_itself(model_class)):
        return towers
    if taken or len(towers) > 1:
        return taken or towers
    main_input = _tower_of_main_input(model_class)
    return frozenset({main_input} if main_input and main_input != "language" else ())


def _declares_modalities_itself(model_class: type) -> bool:
    """Return whether modalities were declared with a main input the class takes, not for an ancestor with another."""
    names = ("input_modalities", "main_input_name")
    modality, main = ([name in vars(base) for base in model_class.__mro__].index(True) for name in names)
    return modality <= main and getattr(model_class, "main_input_name", "") in _parameters(model_class)


def _towers_of(words: object) -> frozenset[Tower]:
    known: dict[str, Tower] = read_facts("towers.toml")["modalities"]
    listed = (words,) if isinstance(words, str) else words if isinstance(words, list | tuple) else ()
    return frozenset(known[word] for word in listed if word in known)


def _parameters(model_class: type) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(model_class.forward).parameters)  # type: ignore[attr-defined]  # any module's
    except (TypeError, ValueError):
        return ()  # a forward made outside Python shows no parameters


@cache
def is_part_of_generator(model_class: type) -> bool:
    """Return whether another class of its file generates text and makes one of this class when it is made."""
    around = vars(sys.modules.get(model_class.__module__, inspect)).values()
    generators = (other for other in around if "language" in _towers_of(getattr(other, "output_modalities", ())))
    made = (getattr(inspect.unwrap(other.__init__), "__code__", None) for other in generators)
    return any(code is not None and model_class.__name__ in code.co_names for code in made)


def _field_words(config: Any, outer_configs: list[Any]) -> frozenset[str]:
    """Return the words in the fields of the nearest outer configuration that hold one of this class."""
    for outer in outer_configs:
        declared = getattr(type(outer), "sub_configs", None)
        names = declared if isinstance(declared, dict) else ()
        fields = [name for name in names if type(getattr(outer, name, None)) is type(config)]
        if fields and type(outer) is not type(config):
            return frozenset("_".join(fields).split("_"))
    return frozenset()


def main_input_tower(module: nn.Module, config: Any) -> Tower | None:
    """Return the tower of the main input: by its name on a model class, else by the sizes in the configuration.

    Every model class inherits ``input_ids`` as its main input; that counts only where ``forward`` takes them.
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


def _find_library_models(sites: Sequence[Site], configured: Collection[str]) -> tuple[str, ...]:
    """Return the paths of the outermost library models in a user's own module; none in a model of a library.

    Args:
        sites: The modules of the model.
        configured: Paths of those that carry a configuration of their own. Inside a module without one they count,
            wherever their classes are from.
    """
    if _is_library_class(type(sites[0].module)):
        return ()
    own = () if "" in configured else configured
    found: list[str] = []
    for site in sites[1:]:
        if any(site.path.startswith(f"{outer}.") for outer in found) or site.block is not None:
            continue
        is_model = _is_library_class(type(site.module)) and any(map(repeats_blocks, site.module.modules()))
        if is_model or site.path in own:
            found.append(site.path)
    return tuple(found)


def _is_library_class(module_class: type[nn.Module]) -> bool:
    """Return whether a class is of a library's models, or derived from one of them that has a forward."""
    packages = tuple(read_facts("heads.toml")["model_packages"])
    from_library = [base for base in module_class.__mro__ if f"{base.__module__}.".startswith(packages)]
    return module_class in from_library or any("forward" in vars(base) for base in from_library)


def _paths_of(model: nn.Module, getter: str, paths: dict[int, str]) -> Iterator[str]:
    """Yield the paths of the modules that a head getter returns, if they belong to this model.

    A user's own method of the same name may be left undefined or take arguments: then it declares no head.
    """
    method = read_attribute(model, getter)
    if not callable(method):
        return
    try:
        heads = method()
    except (NotImplementedError, TypeError):
        return
    for module in heads if isinstance(heads, list | tuple | nn.ModuleList) else (heads,):
        if isinstance(module, nn.Module) and id(module) in paths:
            yield paths[id(module)]
