"""Records a forward on a tape: a mode sees every torch function, hooks tell whose forward is running."""

import sys
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import count
from pathlib import PurePath
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from .memo import Memo
from .operations import IN_PLACE, LOOKED_AT, PURE, SILENT
from .tape import Op, Reading, Ref, Tape

_WHOSE = "_loradar_value"
_NOBODY = (0, 0)
_RUNS = count(1)


class Recorder(TorchFunctionMode):
    """As a context, records the forward of ``model`` that runs inside; the tape is complete when it is left.

    Values are known by an attribute on the tensors that pass by. Parameters, buffers and inputs, which outlive the
    forward, are known by identity and get none.
    """

    def __init__(self, model: nn.Module, root: str = "") -> None:
        super().__init__()
        self.tape = Tape(root)
        self._run = next(_RUNS)
        self._thread = threading.get_ident()
        self._model = model
        self._stack: list[tuple[str, nn.Module | None]] = [(root, None)]
        self._kept: dict[int, int] = {}
        self._owners: dict[int, list[tuple[str, str, nn.Module]]] = {}
        self._paths: dict[int, str] = {}
        self._names: dict[Any, str] = {}
        self._buffers: set[int] = set()
        self._memo = Memo()
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        for path, module in self._model.named_modules():
            self._paths[id(module)] = path
            self._buffers.update(map(id, module._buffers.values()))
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    self._owners.setdefault(id(parameter), []).append((path, name, module))
        self._cleanup.callback(register_module_forward_pre_hook(self._enter_module).remove)
        self._cleanup.callback(register_module_forward_hook(self._leave_module, always_call=True).remove)
        super().__enter__()  # type: ignore[no-untyped-call]  # torch annotates neither
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._cleanup.close()
        self._kept.clear()
        self._owners.clear()

    # --- whose forward runs --------------------------------------------------------------------------------------

    def _enter_module(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        del arguments
        if threading.get_ident() != self._thread:
            return
        path = self._paths.get(id(module))
        if path is None:
            path = self._stack[-1][0]
        else:
            self.tape.called[path] += 1
        self._stack.append((path, module))

    def _leave_module(self, module: nn.Module, arguments: tuple[Any, ...], result: object) -> None:
        del arguments
        if threading.get_ident() != self._thread or self._stack[-1][1] is not module:
            return
        self._stack.pop()
        if len(self._stack) == 1:
            with torch._C.DisableTorchFunction():
                self.tape.outputs = frozenset(self._value(tensor) for tensor in _tensors(result))

    # --- what happens to which tensor ----------------------------------------------------------------------------

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
        with torch._C.DisableTorchFunction():  # looking at a tensor is no operation
            read = [self._value(tensor) for tensor in _tensors((args, kwargs) if kwargs else args)]
            arguments = self._arguments(func, name, args, kwargs)
            key = self._memo.key(func, args, kwargs) if name in PURE else None
            result = self._memo.find(key) if key else None
        if result is None:
            result = func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            if key:
                self._memo.keep(key, result)
            made = self._results(name, args, kwargs, result, read)
        if made:
            self.tape.ops.append(Op(name, tuple(read), made, self._stack[-1][0], *arguments))
        return result

    def _arguments(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        if name not in LOOKED_AT:
            return ()
        return self._without_tensors(args), self._without_tensors(kwargs), func

    def _results(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, read: list[int]
    ) -> tuple[int, ...]:
        changed = _changed_in_place(name, args, kwargs)
        if changed is not None:
            base = changed._base
            values = [self._renew(changed)] + ([self._renew(base)] if base is not None else [])
            return tuple(values)
        made = []
        for tensor in _tensors(result):
            known = self._find(tensor)
            if known is None or known not in read:
                made.append(self._renew(tensor))
        return tuple(made)

    def _without_tensors(self, item: Any) -> Any:
        if isinstance(item, Tensor):
            return Ref(self._value(item))
        if isinstance(item, list):
            return [*map(self._without_tensors, item)]
        if isinstance(item, tuple):
            return tuple(map(self._without_tensors, item))
        if isinstance(item, dict):
            return {name: self._without_tensors(value) for name, value in item.items()}
        return item

    def _find(self, tensor: Tensor) -> int | None:
        kept = self._kept.get(id(tensor))
        if kept is not None:
            return kept
        run, value = tensor.__dict__.get(_WHOSE, _NOBODY)
        return value if run == self._run else None

    def _value(self, tensor: Tensor) -> int:
        found = self._find(tensor)
        if found is None:
            owners = self._owners.get(id(tensor))
            found = self._new_value(tensor)
            if owners:
                self._kept[id(tensor)] = found
                self.tape.parameters[found] = owners[0][:2]
            else:
                self._mark(tensor, found)
                if id(tensor) not in self._buffers:
                    self.tape.inputs.add(found)
        if found in self.tape.parameters:
            return self._read_parameter(tensor, found)
        return found

    def _read_parameter(self, tensor: Tensor, value: int) -> int:
        """Note who reads a parameter; one that is tied is a value of its own for each module that reads it."""
        owners = self._owners[id(tensor)]
        reader = self._stack[-1][1]
        for path, name, module in owners:
            if module is reader:
                return value if self.tape.parameters[value] == (path, name) else self._value_of(tensor, path, name)
        path, name, module = next((o for o in owners if self._runs(o[2])), owners[0])
        if (path, name) not in self.tape.readings:
            frame = _reading_frame(sys._getframe(1))
            if frame is not None and frame.f_locals.get("self") is not module:
                where = f"{PurePath(frame.f_code.co_filename).name}:{frame.f_lineno}"
                self.tape.readings[path, name] = Reading(path, name, where)
        return value

    def _runs(self, module: nn.Module) -> bool:
        return any(running is module for _, running in self._stack)

    def _value_of(self, tensor: Tensor, path: str, name: str) -> int:
        known = next((v for v, owner in self.tape.parameters.items() if owner == (path, name)), None)
        if known is None:
            known = self._new_value(tensor)
            self.tape.parameters[known] = (path, name)
        return known

    def _new_value(self, tensor: Tensor) -> int:
        shape, dtype = tuple(tensor.shape), tensor.dtype
        value = len(self.tape.shapes)
        self.tape.shapes.append(shape)
        if not (dtype.is_floating_point or dtype.is_complex):
            self.tape.counts.add(value)
        return value

    def _renew(self, tensor: Tensor) -> int:
        value = self._new_value(tensor)
        self._mark(tensor, value)
        return value

    def _mark(self, tensor: Tensor, value: int) -> None:
        if id(tensor) in self._kept or id(tensor) in self._owners:
            self._kept[id(tensor)] = value
        else:
            tensor.__dict__[_WHOSE] = (self._run, value)


def _tensors(item: Any) -> list[Tensor]:
    """Return the tensors in arguments or results, in order."""
    found: list[Tensor] = []
    _collect((item,), found)
    return found


def _collect(items: Iterable[Any], found: list[Tensor]) -> None:
    for item in items:
        if isinstance(item, Tensor):
            found.append(item)
        elif isinstance(item, tuple | list):
            _collect(item, found)
        elif isinstance(item, dict):
            _collect(item.values(), found)


def _name_of(func: Any) -> str:
    name = getattr(func, "__name__", None) or str(func)
    owner = getattr(func, "__self__", None)
    if name in ("__get__", "__set__", "__delete__"):
        return getattr(owner, "__name__", name)
    return name.removeprefix("torch.")


def _changed_in_place(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return the tensor an operation writes into, if it does."""
    out = kwargs.get("out")
    if isinstance(out, Tensor):
        return out
    is_in_place = name in IN_PLACE or (name.endswith("_") and not name.endswith("__"))
    return args[0] if is_in_place and args and isinstance(args[0], Tensor) else None


def _reading_frame(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame of the model's own code: not torch's, not ours."""
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if frame.f_globals.get("__name__", "") != __name__ and package != "torch":
            return frame
        frame = frame.f_back
    return None
