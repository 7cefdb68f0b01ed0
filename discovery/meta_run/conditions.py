"""Context managers around a forward that is run only to be recorded: its tensors, settings and time, all restored."""

import ctypes
import os
import random
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ...data import read_facts
from ..facts.wrapped import is_compiled, is_foreign_hook, shape_of
from .stand_ins import flex_attention_as_one, list_packed, stand_ins
from .tensor_values import lift

FOLLOWED = ("eager", "sdpa")
"""Implementations of attention made of torch functions; others are one call into a kernel."""
EXPERTS = "batched_mm"
"""The implementation of experts that does not read which tokens go where."""
_PLAIN = (Tensor, nn.Parameter)
_REMEMBERED = 64
_MUTABLE = (dict, list, set)
_REPEAT_SECONDS = 1.0
_LONGEST = 3.0
"""Times as long as its processor time that a limit may last."""


class OutOfTime(BaseException):
    """Raised inside a forward that takes too long; no ``except Exception`` of the model's swallows it."""

    def __str__(self) -> str:
        return "The forward did not end in the time it was given."


# --- the model is left as it was --------------------------------------------------------------------------------------


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode without gradients inside, and restore it exactly after.

    Restored are every module's attributes (one level deep in lists, dicts and sets), parameters, buffers with their
    values, hooks, training flags, ``requires_grad``, every configuration's fields, the random states, gradient mode
    and default dtype.
    """
    snapshot = _Snapshot(model)
    try:
        for module in snapshot.modules:
            module.__dict__["training"] = False
            _call_plainly(module)
        with random_states_kept(), torch.no_grad():
            yield
    finally:
        snapshot.restore()


def _call_plainly(module: nn.Module) -> None:
    """Leave out of a module's call what other packages put around it: compilation, and hooks that move weights."""
    if is_compiled(module):
        return
    own = module.__dict__
    if own.get("_compiled_call_impl") is not None:  # of ``module.compile()``
        own["_compiled_call_impl"] = None
    if "_hf_hook" in own and "_old_forward" in own:  # of accelerate, which replaces the forward
        own["forward"] = own["_old_forward"]
    for hooks in (own["_forward_pre_hooks"], own["_forward_hooks"]):
        for number in [number for number, hook in hooks.items() if is_foreign_hook(hook)]:
            del hooks[number]


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Restore the random states on leaving."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])  # noqa: NPY002 - the global one
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


class _Snapshot:
    """The state of a model and of torch, to be restored."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = list(model.modules())
        held = [value for module in self.modules for value in module.__dict__.values()]
        objects = _each_once((*self.modules, *filter(_is_plain, held)))
        self._attributes = [(each.__dict__, each.__dict__.copy()) for each in objects]
        contents = _each_once(value for value in held if isinstance(value, _MUTABLE))
        self._empty = [content for content in contents if not content]
        self._contents = [(content, content.copy()) for content in contents if content]
        configs = _each_once(fields.get("config") for fields, _ in self._attributes)
        self._configs = [(vars(c), vars(c).copy()) for c in configs if hasattr(c, "__dict__")]
        self._buffers = [(b, b.clone()) for b in self._tensors("_buffers") if not b.is_meta]
        self._gradients = [(p, p.requires_grad) for p in self._tensors("_parameters")]
        self._dtype = torch.get_default_dtype()

    def _tensors(self, registry: str) -> list[Tensor]:
        values = (value for module in self.modules for value in module.__dict__.get(registry, {}).values())
        return _each_once(value for value in values if isinstance(value, Tensor))

    def restore(self) -> None:
        """Restore all but the random states."""
        for content in self._empty:
            if content:
                content.clear()
        for current, before in (*self._contents, *self._attributes, *self._configs):
            if isinstance(current, list):
                current[:] = before
            elif isinstance(current, set) or not _same_objects(current, before):
                current.clear()
                current.update(before)
        with torch.no_grad():
            for buffer, values in self._buffers:
                buffer.copy_(values)
        for parameter, requires_grad in self._gradients:
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)
        torch.set_default_dtype(self._dtype)


def _each_once(values: Iterable[Any]) -> list[Any]:
    """Return the objects among values, each once."""
    return list({id(value): value for value in values}.values())


def _is_plain(value: object) -> bool:
    """Return whether a value is an object of a user's class that is no module, such as a table of rotations."""
    if isinstance(value, nn.Module | Tensor | type) or not isinstance(getattr(value, "__dict__", None), dict):
        return False
    return type(value).__module__.partition(".")[0] not in ("builtins", "logging", "threading", "torch", "types")


def _same_objects(current: dict[Any, Any], before: dict[Any, Any]) -> bool:
    """Return whether two dicts hold the same objects; tensors must not be compared by value."""
    return current.keys() == before.keys() and list(map(id, current.values())) == list(map(id, before.values()))


# --- where its tensors are --------------------------------------------------------------------------------------------


@contextmanager
def weights_on_meta(model: nn.Module) -> Iterator[None]:
    """Give the model meta tensors for parameters and buffers inside; the values of small buffers stay known.

    Parts that cannot compute with those have stand-ins.
    """

    def meta(tensor: Tensor) -> Tensor:
        is_plain = type(tensor) in _PLAIN  # a subclass computes in its own way: sharded, quantised
        if tensor.is_meta and is_plain:
            return tensor
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(torch.empty(shape_of(tensor), dtype=tensor.dtype, device="meta"), requires_grad=False)
        if (
            is_plain
            and tensor.device.type == "cpu"
            and (not tensor.is_floating_point() or tensor.numel() <= _REMEMBERED)
        ):
            return lift(tensor.clone())
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    packed = list_packed(model)
    with _replaced(model, meta), stand_ins(model, packed):
        yield


def weights_on_cpu(model: nn.Module) -> AbstractContextManager[None]:
    """Give the model tensors of zeros on the CPU inside, in half precision: memory is taken only where it is read."""

    def zeros(tensor: Tensor) -> Tensor:
        dtype = torch.bfloat16 if tensor.is_floating_point() else tensor.dtype
        # unlike torch.zeros, which writes every byte
        filled = torch.from_numpy(np.zeros(tensor.numel() * dtype.itemsize, np.uint8)).view(dtype).view(tensor.shape)
        return nn.Parameter(filled, requires_grad=False) if isinstance(tensor, nn.Parameter) else filled

    return _replaced(model, zeros)


@contextmanager
def _replaced(model: nn.Module, replacement: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace every tensor of a model inside; one that is shared stays shared."""
    made: dict[int, Tensor] = {}
    modules = [module for module in model.modules() if not is_compiled(module)]
    kinds = ("_parameters", "_buffers")
    registries: list[dict[str, Any]] = [getattr(module, kind) for kind in kinds for module in modules]
    before = [(r, name, tensor) for r in registries for name, tensor in r.items() if isinstance(tensor, Tensor)]
    try:
        for registry, name, tensor in before:
            if id(tensor) not in made:
                made[id(tensor)] = replacement(tensor)
            registry[name] = made[id(tensor)]
        yield
    finally:
        for registry, name, tensor in before:
            registry[name] = tensor


# --- its settings -----------------------------------------------------------------------------------------------------


@contextmanager
def plain_settings(model: nn.Module, experts: str = EXPERTS) -> Iterator[None]:
    """Choose implementations that can be followed and disable checks that read values; undone on leaving.

    Where values are known, each expert may work on its own tokens (``eager``), which takes the least memory. The
    fields of configurations are restored by :func:`untouched`.
    """
    for config in [module.__dict__.get("config") for module in model.modules()]:
        fields = vars(config) if isinstance(getattr(type(config), "model_type", None), str) else {}
        if fields.get("_attn_implementation_internal") not in (None, *FOLLOWED):
            fields["_attn_implementation_internal"] = "sdpa"
        if "_experts_implementation_internal" in fields:
            fields["_experts_implementation_internal"] = experts
    checked = os.environ.get("TRANSFORMERS_DISABLE_TORCH_CHECK")
    validated = Distribution._validate_args  # noqa: SLF001 - there is a setter only
    start = torch.autocast.__init__
    fast = torch.backends.mha.get_fastpath_enabled()

    def start_on_cpu(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        """Construct ``torch.autocast``, which rejects meta, where nothing is cast anyway."""
        start(self, "cpu" if device_type == "meta" else device_type, *args, **kwargs)

    os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] = "1"
    Distribution.set_default_validate_args(value=False)
    torch.backends.mha.set_fastpath_enabled(value=False)
    torch.autocast.__init__ = start_on_cpu  # type: ignore[method-assign]
    try:
        with uncompiled(), flex_attention_as_one():
            yield
    finally:
        torch.autocast.__init__ = start  # type: ignore[method-assign]
        torch.backends.mha.set_fastpath_enabled(fast)
        Distribution.set_default_validate_args(validated)
        os.environ.pop("TRANSFORMERS_DISABLE_TORCH_CHECK", None)
        if checked is not None:
            os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] = checked


_uncompiled: dict[object, Any] = {}
"""The contexts that are entered, the first with the stance it has set."""


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run what ``torch.compile`` wraps as it is; the last context that is left restores the stance.

    A context restores what it found, and one in a generator may be left after the one around it: compilation would stay
    off for good.
    """
    if "torch._dynamo" not in sys.modules:  # torch.compile loads it
        yield
        return
    own = object()
    stance = next(iter(_uncompiled.values())) if _uncompiled else torch.compiler.set_stance("force_eager")
    _uncompiled[own] = stance
    try:
        yield
    finally:
        del _uncompiled[own]
        if not _uncompiled:
            stance.__exit__(None, None, None)


def remove_chance(model: nn.Module) -> None:
    """Set the attributes to zero that make a forward random in train mode, by the words of ``data/liveness.toml``."""
    named = re.compile("|".join(map(re.escape, read_facts("liveness.toml")["random"])))
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):  # noqa: SLF001 - the base class of all dropouts
            module.p = 0.0
        config = getattr(module.__dict__.get("config"), "__dict__", None)
        for attributes in (module.__dict__, config if isinstance(config, dict) else {}):
            switches = [name for name, value in attributes.items() if value is True]
            rates = [name for name, value in attributes.items() if isinstance(value, float)]
            attributes.update(dict.fromkeys(filter(named.search, switches), False))
            attributes.update(dict.fromkeys(filter(named.search, rates), 0.0))


# --- its time ---------------------------------------------------------------------------------------------------------


class TimeLimit:
    """A limit on the processor time of the thread that makes it.

    What other programs of a busy machine take does not count; a forward that sleeps is ended all the same.
    """

    def __init__(self, seconds: float) -> None:
        self._used: Callable[[], float] = time.monotonic
        if hasattr(time, "pthread_getcpuclockid"):  # not on macOS
            self._used = partial(time.clock_gettime, time.pthread_getcpuclockid(threading.get_ident()))
        self._ends = self._used() + seconds, time.monotonic() + _LONGEST * seconds

    @property
    def left(self) -> float:
        """Seconds until it ends, at the earliest; none or fewer once it has."""
        return min(self._ends[0] - self._used(), self._ends[1] - time.monotonic())


def time_limit(limit: TimeLimit) -> AbstractContextManager[None]:
    """Raise ``OutOfTime`` inside once a limit has ended, and again each second if that was swallowed."""
    return (_alarm if threading.current_thread() is threading.main_thread() else _watchdog)(limit)


@contextmanager
def _alarm(limit: TimeLimit) -> Iterator[None]:
    """Interrupt the main thread by a signal, also in a sleep; an earlier alarm still rings in its time."""

    def ring(*_: object) -> None:
        if limit.left <= 0:
            raise OutOfTime
        signal.setitimer(signal.ITIMER_REAL, max(limit.left, 1e-3), _REPEAT_SECONDS)

    started = time.monotonic()
    handler = signal.signal(signal.SIGALRM, ring)
    delay, interval = signal.setitimer(signal.ITIMER_REAL, max(limit.left, 1e-3), _REPEAT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if delay:
            signal.setitimer(signal.ITIMER_REAL, max(delay - (time.monotonic() - started), 1e-3), interval)


@contextmanager
def _watchdog(limit: TimeLimit) -> Iterator[None]:
    """Interrupt another thread between two steps of Python, by an exception set from a third one."""
    ended = threading.Event()
    thread = ctypes.c_ulong(threading.get_ident())

    def watch() -> None:
        while not ended.wait(limit.left if limit.left > 0 else _REPEAT_SECONDS):
            if limit.left <= 0:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(OutOfTime))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)
