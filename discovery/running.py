"""Runs a model's own forward on the meta device, with inputs made for it, so that a watcher can follow it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.modules.module import register_module_forward_pre_hook

from .answers import Answers
from .input_search import Failure, Search
from .inputs import Inputs, Plan
from .untouched import untouched

MOST_ATTEMPTS = 24
FEWER_ATTEMPTS = 10
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
    with untouched(model), _on_meta(model), _plain_settings(model):
        session = _Session(watch, time.monotonic() + seconds)
        session.run_within("", model, model, MOST_ATTEMPTS)
    return tuple(session.runs)


class _Session:
    """The runs of one model, and what they reached."""

    def __init__(self, watch: Watch, deadline: float) -> None:
        self.runs: list[Run] = []
        self._watch = watch
        self._deadline = deadline
        self._called: set[int] = set()
        self._failed: list[tuple[str, tuple[str, ...]]] = []
        self._worked: dict[type[nn.Module], Plan] = {}

    def run_within(self, path: str, part: nn.Module, around: nn.Module, attempts: int) -> None:
        """Run a part; then, while it has blocks that were not reached, the models inside it, then its children."""
        self._run(path, part, around, attempts)
        if not self._is_unfinished(part):
            return
        around = part if "config" in part.__dict__ else around
        models = [(at, inner) for at, inner in part.named_modules() if at and _is_model(inner)]
        for at, inner in _outermost(models):
            if self._is_unfinished(inner):
                self.run_within(f"{path}.{at}".lstrip("."), inner, around, attempts)
        for at, child in part.named_children():
            if (self._is_unfinished(child) or self._is_lone_block(part, child)) and not _is_model(child):
                self.run_within(f"{path}.{at}".lstrip("."), child, around, FEWER_ATTEMPTS)

    def _is_lone_block(self, holder: nn.Module, block: nn.Module) -> bool:
        return isinstance(holder, nn.ModuleList) and _is_unreached_block(block, self._called)

    def _is_unfinished(self, part: nn.Module) -> bool:
        return time.monotonic() < self._deadline and _has_unreached_blocks(part, self._called)

    def _run(self, path: str, part: nn.Module, around: nn.Module, attempts: int) -> None:
        if isinstance(part, nn.ModuleList | nn.ModuleDict):
            return
        inputs = Inputs(part, around)
        given = inputs.given(Plan())
        if any(given == other and (not outer or path.startswith(f"{outer}.")) for outer, other in self._failed):
            return  # a model around it failed with the same inputs: that of a head around its base, say
        search = Search(inputs, self._worked.get(type(part), Plan()))
        for _ in range(attempts):
            plan = search.next_plan()
            seconds = self._deadline - time.monotonic()
            if plan is None or seconds <= 0:
                break
            failure = _attempt(part, inputs.make(plan), plan, self._watch, self._called, seconds)
            self.runs.append(Run(path, inputs.given(plan), "meta", failure and _first_line(failure.text)))
            if failure is None:
                self._worked[type(part)] = plan
                return
            search.learn(failure)
        self._failed.append((path, given))


def _outermost(parts: list[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """Return the parts that stand in no other of them."""
    outer: list[tuple[str, nn.Module]] = []
    for path, part in parts:
        if not any(path.startswith(f"{above}.") for above, _ in outer):
            outer.append((path, part))
    return outer


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


def _is_model(part: nn.Module) -> bool:
    return hasattr(type(part), "main_input_name") or hasattr(type(part), "config_name")


def _has_unreached_blocks(part: nn.Module, called: set[int]) -> bool:
    """Tell whether a repeated block of a part was not called, nor anything in it; a single layer is no block."""
    lists = (held for held in part.modules() if isinstance(held, nn.ModuleList))
    return any(_is_unreached_block(block, called) for held in lists for block in held)


def _is_unreached_block(block: nn.Module, called: set[int]) -> bool:
    return next(block.children(), None) is not None and not any(id(inner) in called for inner in block.modules())


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
    validated = Distribution._validate_args
    Distribution.set_default_validate_args(value=False)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        Distribution.set_default_validate_args(validated)
        if checked is None:
            del os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"]
        else:
            os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] = checked
