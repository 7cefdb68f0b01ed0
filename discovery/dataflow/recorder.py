"""Record a forward on a tape: a mode intercepts every torch function, hooks follow the module whose forward runs."""

import inspect
import sys
import threading
from collections.abc import Hashable
from contextlib import ExitStack
from itertools import count
from pathlib import PurePath
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from ..meta_run.tensor_values import KNOWN, list_outputs
from .operations import CUTS, IN_PLACE, PURE, SILENT, WITH_ARGUMENTS, Op, Ref, Tape

_OWNER = "_loradar_value"
_NO_VALUE = (0, 0)
_RUNS = count(1)


class Recorder(TorchFunctionMode):
    """As a context, record the forward of ``model`` that runs inside; the tape is complete when it is left.

    Values are identified by an attribute on the tensors that pass by. Parameters, buffers and inputs, which outlive the
    forward, are identified by ``id`` and get none.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.tape = Tape()
        self._run = next(_RUNS)
        self._thread = threading.get_ident()
        self._model = model
        self._stack: list[tuple[str, nn.Module | None]] = [("", None)]
        self._values_by_id: dict[int, int] = {}
        self._owners: dict[int, list[tuple[str, str, nn.Module]]] = {}
        self._paths: dict[int, str] = {}
        self._names: dict[Any, str] = {}
        self._buffers: set[int] = set()
        self._memo = ShapeMemo()
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        for path, module in self._model.named_modules():
            self._paths[id(module)] = path
            self._buffers.update(map(id, module._buffers.values()))
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    self._owners.setdefault(id(parameter), []).append((path, name, module))
        self._cleanup.callback(register_module_forward_pre_hook(self.enter_module).remove)
        self._cleanup.callback(register_module_forward_hook(self.leave_module, always_call=True).remove)
        super().__enter__()  # type: ignore[no-untyped-call]  # torch annotates neither
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._cleanup.close()
        self._values_by_id.clear()
        self._owners.clear()

    def finish(self, result: object) -> None:
        """Record the result of the forward as the outputs of the tape; to be called inside the context."""
        with torch._C.DisableTorchFunction():
            found = {self._find(tensor) for tensor in list_outputs(result)}
            self.tape.outputs.update(value for value in found if value is not None)
            self.tape.is_lost = None in found

    # --- the module whose forward runs ---------------------------------------------------------------------------

    def enter_module(self, module: nn.Module, _arguments: tuple[Any, ...]) -> None:
        """Push a module on the stack when its forward begins."""
        if threading.get_ident() != self._thread:
            return
        path = self._paths.get(id(module))
        if path is not None:
            self.tape.called[path] += 1
        self._stack.append((self._stack[-1][0] if path is None else path, module))

    def leave_module(self, module: nn.Module, arguments: tuple[Any, ...], result: object) -> None:
        """Pop a module from the stack when its forward ends; record the values the whole model returns."""
        if threading.get_ident() != self._thread or self._stack[-1][1] is not module:
            return
        path, _ = self._stack.pop()
        if isinstance(module, nn.MultiheadAttention):
            takes_query = bool(arguments) or "query" in inspect.signature(type(module).forward).parameters
            # As PyTorch's is called, which PEFT's adapter relies on: a query in, a pair out.
            if takes_query and isinstance(result, tuple) and len(result) == 2:  # noqa: PLR2004
                self.tape.pairs.add(path)
        if module is self._model:
            with torch._C.DisableTorchFunction():
                values = map(self._find, _tensors(result, within_objects=True))
                self.tape.returned.update(value for value in values if value is not None)

    # --- operations ----------------------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        name = self._names.get(func)
        if name is None:
            name = self._names[func] = _name_of(func)
        if name in SILENT:
            return func(*args, **kwargs)
        with torch._C.DisableTorchFunction():  # reading a tensor's attributes is no operation
            read = [self._value(tensor) for tensor in _tensors((args, kwargs) if kwargs else args)]
            is_kept = name in WITH_ARGUMENTS
            arguments: dict[str, Any] = {"is_cut": name in CUTS or _is_without_gradient()}
            if is_kept:
                arguments |= {"args": self._with_refs(args), "kwargs": self._with_refs(kwargs), "func": func}
            key = self._memo.key(func, args, kwargs) if name in PURE else None
            result = self._memo.find(key) if key else None
        if result is None:
            result = func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            if key:
                self._memo.keep(key, result)
            made = self._results(name, args, kwargs, result, read)
        if made:
            self.tape.ops.append(Op(name, tuple(read), made, self._stack[-1][0], **arguments))
        return result

    def _with_refs(self, item: Any) -> Any:
        """Return arguments with every tensor replaced by a reference to its value."""
        if isinstance(item, Tensor):
            return Ref(self._value(item))
        if isinstance(item, list):
            return [*map(self._with_refs, item)]
        if isinstance(item, tuple):
            return tuple(map(self._with_refs, item))
        if isinstance(item, dict):
            return {name: self._with_refs(value) for name, value in item.items()}
        return item

    def _results(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, read: list[int]
    ) -> tuple[int, ...]:
        """Return the values an operation made: new tensors, or the tensor it wrote into and that one's base."""
        written = kwargs.get("out")
        is_in_place = name in IN_PLACE or (name.endswith("_") and not name.endswith("__"))
        if not isinstance(written, Tensor):
            written = args[0] if is_in_place and args else None
        if isinstance(written, Tensor):
            changed = (written,) if written._base is None else (written, written._base)
            return tuple(map(self._renew, changed))
        return tuple(self._renew(tensor) for tensor in _tensors(result) if self._find(tensor) not in read)

    # --- values --------------------------------------------------------------------------------------------------

    def _find(self, tensor: Tensor) -> int | None:
        value = self._values_by_id.get(id(tensor))
        if value is not None:
            return value
        run, value = tensor.__dict__.get(_OWNER, _NO_VALUE)
        return value if run == self._run else None

    def _value(self, tensor: Tensor) -> int:
        value = self._find(tensor)
        if value is None:
            value = self._new_value(tensor)
            owners = self._owners.get(id(tensor))
            if owners:
                self._values_by_id[id(tensor)] = value
                self.tape.parameters[value] = owners[0][:2]
            else:
                self._mark(tensor, value)
                if id(tensor) not in self._buffers:
                    self.tape.inputs.add(value)
        return self._read_parameter(tensor, value) if value in self.tape.parameters else value

    def _read_parameter(self, tensor: Tensor, value: int) -> int:
        """Record who reads a parameter; one that is tied is a value of its own for each module that reads it."""
        owners = self._owners[id(tensor)]
        reader = self._stack[-1][1]
        for path, name, module in owners:
            if module is reader:
                return value if self.tape.parameters[value] == (path, name) else self._tied_value(tensor, path, name)
        running = [module for _, module in self._stack]
        path, name, module = next((o for o in owners if any(o[2] is other for other in running)), owners[0])
        if (path, name) not in self.tape.direct_reads:
            frame = _model_frame(sys._getframe(1))
            if frame is not None and frame.f_locals.get("self") is not module:
                file = PurePath(frame.f_code.co_filename).name
                self.tape.direct_reads[path, name] = f"{file}:{frame.f_lineno}"
        return value

    def _tied_value(self, tensor: Tensor, path: str, name: str) -> int:
        known = next((v for v, owner in self.tape.parameters.items() if owner == (path, name)), None)
        if known is None:
            known = self._new_value(tensor)
            self.tape.parameters[known] = (path, name)
        return known

    def _new_value(self, tensor: Tensor) -> int:
        value = len(self.tape.shapes)
        self.tape.shapes.append(tuple(tensor.shape))
        if not (tensor.dtype.is_floating_point or tensor.dtype.is_complex):
            self.tape.counts.add(value)
        return value

    def _renew(self, tensor: Tensor) -> int:
        value = self._new_value(tensor)
        self._mark(tensor, value)
        return value

    def _mark(self, tensor: Tensor, value: int) -> None:
        if id(tensor) in self._values_by_id or id(tensor) in self._owners:
            self._values_by_id[id(tensor)] = value
        else:
            tensor.__dict__[_OWNER] = (self._run, value)


def _tensors(item: Any, *, within_objects: bool = False) -> list[Tensor]:
    """Return the tensors in arguments or results, in order; also those of an object, such as a distribution."""
    if isinstance(item, Tensor):
        return [item]
    if within_objects and not isinstance(item, dict | tuple | list):
        return [value for value in getattr(item, "__dict__", {}).values() if isinstance(value, Tensor)]
    parts = item.values() if isinstance(item, dict) else item if isinstance(item, tuple | list) else ()
    return [tensor for part in parts for tensor in _tensors(part, within_objects=within_objects)]


def _is_without_gradient() -> bool:
    """Return whether no gradient flows back: not so in a function that defines its own backward (Reformer's blocks)."""
    frame = None if torch.is_grad_enabled() else inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        is_forward = code.co_name == "forward" and code.co_argcount > 0
        if is_forward and isinstance(frame.f_locals.get(code.co_varnames[0]), torch.autograd.function.FunctionCtx):
            return False
        frame = frame.f_back
    return not torch.is_grad_enabled()


def _name_of(func: Any) -> str:
    name = getattr(func, "__name__", None) or str(func)
    owner = getattr(func, "__self__", None)
    if name in ("__get__", "__set__", "__delete__"):
        return getattr(owner, "__name__", name)
    return name.removeprefix("torch.")


def _model_frame(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame of the model's own code: not torch's, not ours."""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module != __name__ and module.partition(".")[0] != "torch":
            return frame
        frame = frame.f_back
    return None


# --- results by shape -------------------------------------------------------------------------------------------------

Made = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]


class ShapeMemo:
    """A cache of the results of operations on meta, by function, argument shapes and plain values.

    Repeated blocks call the same hundreds of operations. On the meta device most run as Python code that derives a
    shape, in a tenth of a millisecond; a tensor of a known shape is made in a few microseconds.
    """

    def __init__(self) -> None:
        self._made: dict[Hashable, Made] = {}

    def key(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable | None:
        """Return the key of a call, or ``None`` if its result may depend on more than shapes."""
        try:
            named = ((name, _signature(value)) for name, value in kwargs.items())
            key = (func, *map(_signature, args), *named)
            hash(key)
        except (TypeError, LookupError):
            return None
        return key

    def find(self, key: Hashable) -> Tensor | None:
        """Return a new tensor like the one this call made before."""
        made = self._made.get(key)
        if made is None:
            return None
        return torch.empty_strided(made[0], made[1], dtype=made[2], device="meta")

    def keep(self, key: Hashable, result: Any) -> None:
        """Store the result of a call, if it is a single tensor that is no view."""
        if isinstance(result, Tensor) and result.is_meta and result._base is None and KNOWN not in result.__dict__:
            self._made[key] = tuple(result.shape), result.stride(), result.dtype


def _signature(item: Any) -> Any:
    """Return the part of an argument that determines the shape of a result.

    Raises:
        LookupError: If its values may determine it too.
    """
    if isinstance(item, Tensor):
        if not item.is_meta or KNOWN in item.__dict__:
            raise LookupError
        return item.shape, item.stride(), item.dtype
    if isinstance(item, list | tuple):
        return tuple(map(_signature, item))
    return item
