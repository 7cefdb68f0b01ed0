"""What surrounds a forward that is only run to be watched: where its tensors are, its settings, its time."""

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from .known_values import lift

FOLLOWED = ("eager", "sdpa")
"""Implementations of attention that torch functions make up; others are one call into a kernel."""
EXPERTS = "batched_mm"
"""The implementation of experts that does not ask which tokens go where."""
_REMEMBERED = 64
_AGAIN = 1.0


class OutOfTime(BaseException):
    """Raised inside a forward that takes too long; no ``except Exception`` of the model's swallows it."""

    def __str__(self) -> str:
        return "The forward did not end in the time it was given."


@contextmanager
def weights_on_meta(model: nn.Module) -> Iterator[None]:
    """Give the model meta tensors for parameters and buffers inside; the values of small buffers stay known."""
    with _replaced(model, _meta_for):
        yield


@contextmanager
def weights_on_cpu(model: nn.Module) -> Iterator[None]:
    """Give the model tensors of zeros on the CPU inside, in half precision: memory is taken only where it is read."""
    with _replaced(model, _zeros_for):
        yield


@contextmanager
def _replaced(model: nn.Module, replacement: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace every tensor of a model inside; one that is shared stays shared."""
    made: dict[int, Tensor] = {}
    before: list[tuple[dict[str, Any], str, Tensor]] = []
    modules = list(model.modules())
    registries: list[dict[str, Any]] = [module._parameters for module in modules]  # noqa: SLF001
    registries += [module._buffers for module in modules]  # noqa: SLF001
    try:
        for held in registries:
            for name, tensor in held.items():
                if isinstance(tensor, Tensor):
                    before.append((held, name, tensor))
                    if id(tensor) not in made:
                        made[id(tensor)] = replacement(tensor)
                    held[name] = made[id(tensor)]
        yield
    finally:
        for held, name, tensor in before:
            held[name] = tensor


def _meta_for(tensor: Tensor) -> Tensor:
    if tensor.is_meta:
        return tensor
    if isinstance(tensor, nn.Parameter):
        empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        return nn.Parameter(empty, requires_grad=False)
    if tensor.device.type == "cpu" and (not tensor.is_floating_point() or tensor.numel() <= _REMEMBERED):
        return lift(tensor.clone())
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def _zeros_for(tensor: Tensor) -> Tensor:
    dtype = torch.bfloat16 if tensor.is_floating_point() else tensor.dtype
    zeros = torch.zeros(tensor.shape, dtype=dtype)
    return nn.Parameter(zeros, requires_grad=False) if isinstance(tensor, nn.Parameter) else zeros


@contextmanager
def plain_settings(model: nn.Module, experts: str = EXPERTS) -> Iterator[None]:
    """Choose implementations that can be followed and checks that do not ask for values; undone on leaving.

    Where values are known, each expert may work on its own tokens (``eager``), which takes the least memory.

    The fields of configurations are put back by :func:`~loradar.discovery.meta_run.untouched.untouched`.
    """
    for config in {id(held): held for held in _configurations(model)}.values():
        fields = vars(config)
        if fields.get("_attn_implementation_internal") not in (None, *FOLLOWED):
            fields["_attn_implementation_internal"] = "sdpa"
        if "_experts_implementation_internal" in fields:
            fields["_experts_implementation_internal"] = experts
    checked = os.environ.get("TRANSFORMERS_DISABLE_TORCH_CHECK")
    validated = Distribution._validate_args  # noqa: SLF001 - there is a setter only
    start = torch.autocast.__init__
    fast = torch.backends.mha.get_fastpath_enabled()
    os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] = "1"
    Distribution.set_default_validate_args(value=False)
    torch.backends.mha.set_fastpath_enabled(value=False)
    torch.autocast.__init__ = _started_on_cpu(start)  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.autocast.__init__ = start  # type: ignore[method-assign]
        torch.backends.mha.set_fastpath_enabled(fast)
        Distribution.set_default_validate_args(validated)
        os.environ.pop("TRANSFORMERS_DISABLE_TORCH_CHECK", None)
        if checked is not None:
            os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] = checked


def _started_on_cpu(start: Callable[..., None]) -> Callable[..., None]:
    """Return a constructor of ``torch.autocast`` that knows meta, where nothing is cast anyway."""

    def begin(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        start(self, "cpu" if device_type == "meta" else device_type, *args, **kwargs)

    return begin


def _configurations(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        config = module.__dict__.get("config")
        if isinstance(getattr(type(config), "model_type", None), str):
            yield config


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise ``OutOfTime`` inside if it takes longer, and again each second if that was swallowed."""
    limit = _alarm if threading.current_thread() is threading.main_thread() else _watchdog
    with limit(seconds):
        yield


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """In the main thread a signal interrupts, also a sleep; an alarm that was set before rings in its time."""

    def ring(*_: object) -> None:
        raise OutOfTime

    started = time.monotonic()
    handler = signal.signal(signal.SIGALRM, ring)
    delay, interval = signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), _AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if delay:
            signal.setitimer(signal.ITIMER_REAL, max(delay - (time.monotonic() - started), 1e-3), interval)


@contextmanager
def _watchdog(seconds: float) -> Iterator[None]:
    """In another thread an exception is set from a third one; it interrupts between two steps of Python."""
    ended = threading.Event()
    thread = ctypes.c_ulong(threading.get_ident())

    def watch() -> None:
        wait = seconds
        while not ended.wait(wait):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(OutOfTime))
            wait = _AGAIN

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)
