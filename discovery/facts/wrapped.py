"""Wrapped models: the model inside a wrapper, and the models that leave nothing to read or adapt.

Only class names are compared, so that no package need be imported.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from ...data import read_facts
from ...errors import InvalidConfig, LoradarError, ScanFailed

MARKS = ({"base_layer", "lora_A"}, {"base_layer", "lora_embedding_A"}, {"original_module", "modules_to_save"})
"""Names of children that only an adapter's module has, ours or PEFT's."""
ADAPTERS = ("loradar", "peft")
"""Packages with modules that hold an adapter and its base layer."""


def is_compiled(module: nn.Module) -> bool:
    """Return whether a module is TorchScript's: scripted, traced or loaded, with no layers of Python inside."""
    return isinstance(module, torch.jit.ScriptModule)


def own_class(module: object) -> type:
    """Return the class of a module without those that a sharding or a parametrisation derives from it at run time."""
    classes = type(module).__mro__
    if classes[0].__module__ == "torch.fx.graph_module":  # each graph has a class of its own
        return next(base for base in classes if base.__name__ == "GraphModule" and "<locals>" not in base.__qualname__)
    if classes[0].__module__.startswith(("torch.distributed.", "torch.nn.utils.parametrize")) and len(classes) > 1:
        # class FSDPLinear(FSDPModule, Linear); class ParametrizedLinear(Linear)
        return next(base for base in classes[1:] if issubclass(base, nn.Module) or base is object)
    return classes[0]


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside wrappers such as ``DistributedDataParallel``, whose layers a scan can read."""
    while (wrapper := _find_wrapper(model)) is not None and "inner" in wrapper:
        model = getattr(model, wrapper["inner"])
    return model


def open_wrappers(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return the wrappers around a model that adapters can be put into, the outermost first, and the model itself.

    Compiled and data-parallel models are run as they are. The others are for ``check_unwrapped`` to reject.
    """
    opened = [model]
    while isinstance(model, nn.Module) and (inner := find_inner(model, at_root=True)):
        model = model._modules[inner]  # type: ignore[assignment]  # noqa: SLF001 - past its own lookup of attributes
        opened.append(model)
    return tuple(opened)


def find_inner(module: object, *, at_root: bool = False) -> str:
    """Return the child with the model, of a wrapper that runs adapters put into it; empty for any other module.

    Args:
        module: The module.
        at_root: Whether wrappers count too that have to be made again around a model with adapters.
    """
    own_type: Any = type(module)
    wrapper = _find_entry(own_type)
    if wrapper is None or wrapper.get("adapters") not in (("through", "inside") if at_root else ("through",)):
        return ""
    inner: str = wrapper["inner"]
    return inner


def check_readable(model: nn.Module) -> None:
    """Reject a model whose layers cannot be read.

    Raises:
        ScanFailed: If a wrapper leaves nothing to read, a layer has no shape yet, or the model has adapters in it.
    """
    for path, module in _walk(model):
        wrapper = _find_wrapper(module)
        if wrapper is not None and "inner" not in wrapper and not (path and is_compiled(module)):
            raise _rejected(ScanFailed, path, module, wrapper["why"], f"Scan the model {wrapper['before']}.")
        if any(isinstance(parameter, nn.parameter.UninitializedParameter) for _, parameter in _own_parameters(module)):
            raise _rejected(ScanFailed, path, module, "does not know its shape yet", "Run the model once before.")
    adapted = find_adapted(model)
    if adapted is not None:
        message = f"{own_class(model).__name__} carries adapters already (at {adapted!r})."
        raise ScanFailed(f"{message} Scan it before they are put in, or call unload() on it first.", path=adapted)


def _find_way_out(given: Any) -> str:
    """Return how to get at the module that was meant, in words."""
    if isinstance(given, str):
        return f"Load the model first: AutoModel.from_pretrained({given!r})."
    if isinstance(given, type):
        return f"It is the class {given.__name__}: give a model of it."
    if hasattr(given, "model_type") and hasattr(given, "to_dict"):
        return "Build the model of the configuration first: AutoModel.from_config(config)."
    inside = [name for name, value in (getattr(given, "__dict__", None) or {}).items() if isinstance(value, nn.Module)]
    if inside:
        return f"Give a module inside of it: {', '.join(f'.{name}' for name in inside[:4])}."
    return "Give the module it was made from." if given is not None else "Give a model."


def check_unwrapped(model: nn.Module, *, is_opened: bool = False) -> None:
    """Reject a model that is wrapped, or sharded in a way that an adapter put in now would miss.

    Args:
        model: The model.
        is_opened: Whether the wrappers that ``open_wrappers`` opens are accepted.

    Raises:
        InvalidConfig: Naming the wrapper, the reason and the way out.
    """
    if not isinstance(model, nn.Module):
        name = type(model).__name__
        raise InvalidConfig(f"A {name} is no torch.nn.Module. {_find_way_out(model)}", class_name=name)
    for path, module in _walk(open_wrappers(model)[-1] if is_opened else model):
        wrapper = _find_wrapper(module)
        is_accepted = wrapper is None or (is_opened and find_inner(module)) or (path and is_compiled(module))
        if wrapper is not None and not is_accepted:
            inner = wrapper.get("inner")
            way_out = f"Adapt the model inside (its {inner!r}), and wrap that." if inner else ""
            way_out = way_out or f"Adapt the model {wrapper['before']}."
            raise _rejected(InvalidConfig, path, module, wrapper["why"], way_out)
        _check_whole(path, module)


def _check_whole(path: str, module: nn.Module) -> None:
    """Reject a module with a parameter that is sharded over processes."""
    sharded = next((name for name, tensor in _own_parameters(module) if is_sharded(tensor)), None)
    if sharded is not None:
        why = f"has a {sharded!r} that is sharded over processes, which an adapter put in now is not"
        way_out = "Adapt the model first, then shard it (fully_shard, parallelize_module)."
        raise _rejected(InvalidConfig, path, module, why, way_out)


def _rejected(kind: type[LoradarError], path: str, module: nn.Module, why: str, way_out: str) -> LoradarError:
    name = own_class(module).__name__
    subject = f"{path!r} ({name})" if path else name
    return kind(f"{subject} {why}. {way_out}", path=path, class_name=name)


def find_adapted(model: nn.Module) -> str | None:
    """Return the path of the first module that an adapter, ours or PEFT's, was put around; ``None`` without one."""
    for path, module in _walk(model):
        names = {} if is_compiled(module) else module._modules  # noqa: SLF001 - hasattr() would look in the wrapped module
        if "base_layer" in names or "original_module" in names:
            is_ours = type(module).__module__.partition(".")[0] in ADAPTERS
            if is_ours or any(names.keys() >= marks for marks in MARKS):
                return path
    return None


def list_compiled(model: nn.Module) -> tuple[str, ...]:
    """Return the paths of the parts that are TorchScript modules."""
    return tuple(path for path, module in _walk(model) if is_compiled(module))


def list_packed(model: nn.Module) -> tuple[str, ...]:
    """Return the paths of torch's own quantised layers: their weight is packed, and no gradient passes them."""
    packed = [path for path, module in _walk(model) if type(module).__module__.startswith("torch.ao.nn.quantized")]
    return tuple(path for path in packed if path.rpartition(".")[0] not in packed)


def is_sharded(tensor: object) -> bool:
    """Return whether a tensor is a ``DTensor``, of which each process holds a part."""
    return type(tensor).__name__ == "DTensor"


def shape_of(tensor: torch.Tensor) -> tuple[int, ...]:
    """Return the shape of a parameter; one that DeepSpeed partitioned is empty, and keeps its shape beside."""
    return tuple(getattr(tensor, "ds_shape", tensor.shape))


def _walk(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield (path, module) of every module once, not going into compiled ones."""
    seen: set[int] = set()
    stack = [("", model)]
    while stack:
        path, module = stack.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield path, module
        if not is_compiled(module):
            prefix = f"{path}." if path else ""
            children = reversed(module._modules.items())  # noqa: SLF001 - named_children skips doubles
            stack += [(prefix + name, child) for name, child in children if child is not None]


def _own_parameters(module: nn.Module) -> Iterable[tuple[str, nn.Parameter | None]]:
    return () if is_compiled(module) else module._parameters.items()  # noqa: SLF001 - quicker than a generator per module


def _find_wrapper(module: object) -> dict[str, Any] | None:
    """Return the entry of ``data/wrappers.toml`` for a module, or ``None``."""
    own_type: Any = type(module)
    return _find_entry(own_type)


@lru_cache(maxsize=1024)  # a model has many modules of few classes
def _find_entry(own: type) -> dict[str, Any] | None:
    names = {f"{base.__module__}.{base.__qualname__}" for base in own.__mro__}
    return next((entry for entry in read_facts("wrappers.toml")["wrapper"] if entry["class"] in names), None)


def is_foreign_hook(hook: Any) -> bool:
    """Return whether a forward hook is of a package that gathers or moves weights."""
    function = getattr(hook, "func", hook)
    module = str(getattr(function, "__module__", ""))
    return any(
        module == package or module.startswith(f"{package}.") for package in read_facts("wrappers.toml")["hooks"]
    )
