"""Runs a model's own forward on the meta device, with inputs made for it, so that a watcher can follow it."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from .answers import Answers
from .input_search import Failure, Search
from .inputs import Inputs, Plan
from .untouched import untouched

MOST_ATTEMPTS = 16
Watch = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt at a forward.

    Attributes:
        path: The sub-model that was run; empty for the whole model.
        inputs: Names of the inputs it was given.
        device: ``meta`` or ``cpu``.
        error: Why it did not finish, in one line; ``None`` if it did.
    """

    path: str
    inputs: tuple[str, ...]
    device: str
    error: str | None


class OutOfTime(BaseException):
    """Raised inside a forward that takes too long; no ``except Exception`` of the model's swallows it."""


def run_model(model: nn.Module, watch: Watch, example_inputs: Any = None, seconds: float = 20.0) -> tuple[Run, ...]:
    """Run the forward of ``model``, then of each model inside it that was not reached.

    ``watch`` is entered afresh around each attempt and sees the exception of one that fails.
    """
    runs: list[Run] = []
    called: set[int] = set()
    failed: list[tuple[str, tuple[str, ...]]] = []
    with untouched(model), _on_meta(model), _plain_settings(model):
        for path, part in _parts(model):
            inputs = Inputs(part)
            given = path, inputs.given(Plan())
            if path and (not _has_unreached_blocks(part, called) or _failed_already(given, failed)):
                continue
            runs.extend(_run_part(path, part, inputs, watch, called, seconds))
            if runs[-1].error is not None:
                failed.append(given)
    return tuple(runs)


def _failed_already(part: tuple[str, tuple[str, ...]], failed: list[tuple[str, tuple[str, ...]]]) -> bool:
    """Tell whether a model around this one failed with the same inputs: that of a head around its base, say."""
    return any(part[1] == inputs and (not path or part[0].startswith(f"{path}.")) for path, inputs in failed)


def _run_part(
    path: str, part: nn.Module, inputs: Inputs, watch: Watch, called: set[int], seconds: float
) -> Iterator[Run]:
    search = Search(inputs)
    for _ in range(MOST_ATTEMPTS):
        plan = search.next_plan()
        if plan is None:
            return
        failure = _attempt(part, inputs.make(plan), plan, watch, called, seconds)
        yield Run(path, inputs.given(plan), "meta", failure and _first_line(failure.text))
        if failure is None:
            return
        search.learn(failure)


def _attempt(
    part: nn.Module, values: dict[str, Any], plan: Plan, watch: Watch, called: set[int], seconds: float
) -> Failure | None:
    answers = Answers(plan.number, flag=plan.flag, wide=plan.wide)
    taken = answers.take(values)
    trail = _Trail()
    hook = register_module_forward_pre_hook(trail.enter)
    try:
        with _time_limit(seconds), answers, watch():
            part(**taken)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a forward may raise anything, our own OutOfTime included
        return Failure(f"{type(error).__name__}: {error}", answers.calls, trail.module, trail.shape)
    finally:
        hook.remove()
    called |= trail.called
    return None


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300]


class _Trail:
    """Which modules a forward entered, and the last of them."""

    def __init__(self) -> None:
        self.called: set[int] = set()
        self.module: nn.Module | None = None
        self.shape: tuple[int, ...] | None = None

    def enter(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        self.called.add(id(module))
        self.module = module
        self.shape = None
        if arguments and isinstance(arguments[0], Tensor):
            with torch._C.DisableTorchFunction():
                self.shape = tuple(arguments[0].shape)


def _parts(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the model and the models inside it, parents first."""
    found = [(path, part) for path, part in model.named_modules() if path and _is_model(part)]
    return [("", model), *found]


def _is_model(part: nn.Module) -> bool:
    return hasattr(type(part), "main_input_name") or hasattr(type(part), "config_name")


def _has_unreached_blocks(part: nn.Module, called: set[int]) -> bool:
    return any(
        id(block) not in called and not any(id(inner) in called for inner in block.modules())
        for held in part.modules()
        if isinstance(held, nn.ModuleList)
        for block in held
    )


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise OutOfTime(f"The forward did not end within {seconds:g} s.")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _on_meta(model: nn.Module) -> Iterator[None]:
    """Replace parameters and buffers by meta tensors; ``untouched`` puts them back."""
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None and not tensor.is_meta:
                    held[name] = made.setdefault(id(tensor), _as_meta(tensor))
    yield


def _as_meta(tensor: Tensor) -> Tensor:
    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    return nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


@contextmanager
def _plain_settings(model: nn.Module) -> Iterator[None]:
    configs = {id(c): c for m in model.modules() if (c := m.__dict__.get("config")) is not None and hasattr(c, "model_type")}
    for config in configs.values():
        fields = vars(config)
        if fields.get("_attn_implementation_internal") not in (None, "eager", "sdpa"):
            fields["_attn_implementation_internal"] = "sdpa"
        if "_experts_implementation_internal" in fields:
            fields["_experts_implementation_internal"] = "batched_mm"
    checked = os.environ.get("TRANSFORMERS_DISABLE_TORCH_CHECK")
    os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] = "1"
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        if checked is None:
            del os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"]
        else:
            os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] = checked
