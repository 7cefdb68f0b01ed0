"""Runs a model's own forward on the meta device, with inputs made for it, so that a watcher can follow it."""

import inspect
import re
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from ..facts.data_files import read_facts
from .conditions import plain_settings, time_limit, weights_on_cpu, weights_on_meta
from .fake_values import Answers
from .input_search import Failure, Search
from .inputs import Inputs, Plan, as_real
from .known_values import on_meta
from .untouched import untouched

_INDEX = re.compile(r"\d+")
Watch = Callable[[Callable[[], Any]], None]
"""Calls the forward it is given, once or more often, and sees what happens."""

MOST_ATTEMPTS = 24
"""Sets of inputs tried for a model."""
FEWER_ATTEMPTS = 10
"""Sets of inputs tried for something in a model that is none of its own."""
CPU_ATTEMPTS = 3
MOST_FAILURES = 60
"""Attempts that may fail before the rest of a model is given up."""
MOST_WASTE = 6.0
"""Seconds of computing that may go into attempts that fail."""
MOST_BYTES = 4 << 30
"""Weights in half precision up to which a model that meta refuses is run on the CPU."""
SECONDS = 20.0
"""Time for all forwards of a model."""


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt at a forward.

    Attributes:
        path: The sub-model that was run; empty for the whole model.
        inputs: Names of the inputs it was given.
        device: ``meta`` or ``cpu``; with example inputs that do not run on meta, where the model is.
        error: Why it did not finish, in one line; ``None`` if it did.
    """

    path: str
    inputs: tuple[str, ...]
    device: str
    error: str | None


def run_model(
    model: nn.Module, watch: Watch, example_inputs: Any = None, seconds: float | None = None
) -> tuple[Run, ...]:
    """Run the forward of ``model``, then of whatever in it has repeated blocks that were not reached.

    ``watch`` is given the forward of each attempt, which raises what the model's does. The model is left as it was
    found, and its weights are not computed with unless example inputs do not run on meta.

    Args:
        model: On any device, meta included.
        watch: What calls the forward of each attempt.
        example_inputs: A tensor, a tuple of positional or a mapping of named inputs, instead of made ones.
        seconds: Time for everything, ``SECONDS`` unless given; a forward that takes longer is interrupted.
    """
    session = _Session(watch, _deadline(seconds))
    with untouched(model), plain_settings(model):
        ran = example_inputs is not None and session.run_examples(model, example_inputs)
        with weights_on_meta(model):
            if not ran:
                session.run("", model, model, MOST_ATTEMPTS)
            session.run_inside("", model, model)
        if not session.has_finished and _bytes(model) <= MOST_BYTES:
            with weights_on_cpu(model):
                session.run_on_cpu(model)
    return tuple(session.runs)


def compute_model(model: nn.Module, watch: Watch, seconds: float | None = None) -> tuple[Run, ...]:
    """Find out on meta what a model and its parts run with, then run them so on the CPU, with numbers for inputs.

    The model may be changed by it: this is for builds that are thrown away.

    Args:
        model: On the CPU, with weights to compute with.
        watch: What calls each forward that computes.
        seconds: Time for everything, ``SECONDS`` unless given.
    """
    deadline = _deadline(seconds)
    found = _Session(lambda forward: forward(), deadline)
    with untouched(model), plain_settings(model), weights_on_meta(model):
        found.run("", model, model, MOST_ATTEMPTS)
        found.run_inside("", model, model)
    session = _Session(watch, deadline)
    with plain_settings(model, experts="eager"):
        for success in found.successes:
            session.compute(success)
    return tuple(session.runs if found.successes else found.runs)


def _deadline(seconds: float | None) -> float:
    return time.monotonic() + (SECONDS if seconds is None else seconds)


@dataclass(frozen=True, slots=True)
class _Success:
    """A forward that ran on meta, and with what."""

    path: str
    forward: Callable[..., Any]
    inputs: Inputs
    plan: Plan


class _Session:
    """The runs of one model, and what they reached."""

    def __init__(self, watch: Watch, deadline: float) -> None:
        self.runs: list[Run] = []
        self.successes: list[_Success] = []
        self._watch = watch
        self._deadline = deadline
        self._called: set[int] = set()
        self._failed: list[tuple[str, tuple[str, ...]]] = []
        self._worked: dict[tuple[type[nn.Module], str], Plan] = {}
        self._alike: set[tuple[str, frozenset[tuple[str, type[nn.Module]]]]] = set()
        self._failures, self._waste = 0, 0.0

    @property
    def has_finished(self) -> bool:
        """Whether any forward finished."""
        return any(run.error is None for run in self.runs)

    def run_inside(self, path: str, part: nn.Module, around: nn.Module) -> None:
        """Run the outermost models in a part that has blocks which were not reached, then its children."""
        if not self._is_unfinished(part):
            return
        around = part if "config" in part.__dict__ else around
        for at, inner in _outermost([(at, inner) for at, inner in part.named_modules() if at and _is_model(inner)]):
            if self._is_unfinished(inner):
                self._run_within(f"{path}.{at}".lstrip("."), inner, around, MOST_ATTEMPTS)
        for at, child in part.named_children():
            is_lone = isinstance(part, nn.ModuleList) and _is_unreached_block(child, self._called)
            if (is_lone or self._is_unfinished(child)) and not _is_model(child):
                self._run_within(f"{path}.{at}".lstrip("."), child, around, FEWER_ATTEMPTS)

    def _run_within(self, path: str, part: nn.Module, around: nn.Module, attempts: int) -> None:
        """Run a part, and what is in it; one of several that differ by their number only stands for all."""
        key = _INDEX.sub("*", path), frozenset((_INDEX.sub("*", at), type(held)) for at, held in part.named_modules())
        if key in self._alike:
            return
        self._alike.add(key)
        self.run(path, part, around, attempts)
        self.run_inside(path, part, around)

    @property
    def _is_over(self) -> bool:
        """Whether no time is left, or enough was tried in vain."""
        is_hopeless = self._failures >= MOST_FAILURES or self._waste >= MOST_WASTE
        return is_hopeless or time.monotonic() >= self._deadline

    def _is_unfinished(self, part: nn.Module) -> bool:
        return not self._is_over and _has_unreached_blocks(part, self._called)

    def run(self, path: str, part: nn.Module, around: nn.Module, attempts: int) -> None:
        """Try sets of inputs on a part until its forward finishes, or what it has instead of one."""
        if isinstance(part, nn.ModuleList | nn.ModuleDict):
            return
        methods = _list_methods(part)
        if not methods and (not path or _is_model(part)):
            self.runs.append(Run(path, (), "meta", f"{type(part).__name__} has no forward."))
        for method in methods:
            self._run_method(path, part, method, around, attempts)

    def _run_method(self, path: str, part: nn.Module, method: str, around: nn.Module, attempts: int) -> None:
        inputs = self._inputs(path, part, method, around)
        if inputs is None:
            return
        given = inputs.given(Plan())
        if any(given == other and (not outer or path.startswith(f"{outer}.")) for outer, other in self._failed):
            return  # a model around it failed with the same inputs: that of a head around its base, say
        search = Search(inputs, self._worked.get((type(part), method), Plan()))
        for _ in range(attempts):
            plan = search.next_plan()
            if plan is None or self._is_over:
                break
            call = _Call(path, _callable(part, method), inputs.given(plan), named=inputs.make(plan))
            failure = self._attempt(call, plan)
            if failure is None:
                self._worked[type(part), method] = plan
                self.successes.append(_Success(path, call.forward, inputs, plan))
                self._run_with_more(self.successes[-1], part)
                return
            search.learn(failure)
        self._failed.append((path, given))

    def _run_with_more(self, success: _Success, part: nn.Module) -> None:
        """Run again with what the forward can also be given, while layers are left that were not reached."""
        for plan in success.inputs.with_more(success.plan):
            if self._is_over or all(id(layer) in self._called for layer in part.modules() if layer._parameters):  # noqa: SLF001
                return
            given = success.inputs.given(plan)
            call = _Call(success.path, success.forward, given, named=success.inputs.make(plan))
            if self._attempt(call, plan) is None:
                self.successes.append(replace(success, plan=plan))
                return

    def compute(self, success: _Success) -> None:
        """Run on the CPU what ran on meta: with a single sample, which is enough, else with as many as there."""
        for plan in (replace(success.plan, batch=1), success.plan):
            named = {name: as_real(value) for name, value in success.inputs.make(plan).items()}
            call = _Call(success.path, success.forward, success.inputs.given(plan), named=named)
            if self._is_over or self._attempt(call, None, "cpu") is None:
                return

    def _inputs(self, path: str, part: nn.Module, method: str, around: nn.Module) -> Inputs | None:
        """Return what a part can be given, or ``None``, with the reason recorded, if that cannot be told."""
        try:
            return Inputs(part, around, method)
        except Exception as error:  # noqa: BLE001 - signatures and configurations of others may raise anything
            if not path or _is_model(part):
                self.runs.append(Run(path, (), "meta", _first_line(error)))
        return None

    def run_examples(self, model: nn.Module, example_inputs: Any) -> bool:
        """Run a model with a user's inputs, on meta, else for real; tell whether that finished."""
        call = _example_call(model, example_inputs)
        with weights_on_meta(model):
            if self._attempt(call, Plan()) is None:
                return True
        devices = {parameter.device for parameter in model.parameters()} or {torch.device("cpu")}
        if torch.device("meta") in devices:
            return False
        return self._attempt(call, None, str(next(iter(devices)))) is None

    def run_on_cpu(self, model: nn.Module) -> None:
        """Try the likeliest inputs of a model that meta refused, on the CPU."""
        methods = _list_methods(model)
        inputs = self._inputs("", model, methods[0], model) if methods else None
        if inputs is None:
            return
        search = Search(inputs, Plan(batch=1))
        for _ in range(CPU_ATTEMPTS):
            plan = search.next_plan()
            if plan is None or self._is_over:
                return
            named = {name: _on_cpu(value) for name, value in inputs.make(plan).items()}
            call = _Call("", _callable(model, methods[0]), inputs.given(plan), named=named)
            failure = self._attempt(call, None, "cpu")
            if failure is None:
                return
            search.learn(failure)

    def _attempt(self, call: "_Call", plan: Plan | None, device: str = "meta") -> Failure | None:
        """Call a part once, on meta with the answers of a plan, or as it is if there is none."""
        answers = Answers(plan.guess) if plan is not None else None
        args, named = (on_meta(call.args), on_meta(call.named)) if answers else (call.args, call.named)
        trail, failure = _Trail(), None
        hook = register_module_forward_pre_hook(trail.enter)
        started = time.thread_time()
        try:
            with time_limit(self._deadline - time.monotonic()), answers or nullcontext():
                self._watch(partial(call.forward, *args, **named))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a forward may raise anything, and OutOfTime is none of Exception
            progress = answers.calls if answers else trail.entered
            failure = Failure(_text(error), progress, trail.module, trail.shape)
        finally:
            hook.remove()
        if failure is None:
            self._called |= trail.called
        else:
            self._failures += 1
            self._waste += time.thread_time() - started
        self.runs.append(Run(call.path, call.names, device, _first_line(failure.text) if failure else None))
        return failure


@dataclass(frozen=True, slots=True)
class _Call:
    """A forward and what it is given."""

    path: str
    forward: Callable[..., Any]
    names: tuple[str, ...]
    args: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)


class _Trail:
    """Which modules a forward entered, the last of them and the shape of its input."""

    def __init__(self) -> None:
        self.called: set[int] = set()
        self.entered = 0
        self.module: nn.Module | None = None
        self.shape: tuple[int, ...] | None = None

    def enter(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        """Note a module whose forward begins."""
        self.called.add(id(module))
        self.entered += 1
        self.module = module
        self.shape = None
        if arguments and isinstance(arguments[0], Tensor):
            with torch._C.DisableTorchFunction():  # noqa: SLF001 - torch's public name for it enters no context
                self.shape = tuple(arguments[0].shape)


def _example_call(model: nn.Module, example_inputs: Any) -> _Call:
    if isinstance(example_inputs, Mapping):
        return _Call("", model, tuple(example_inputs), named=dict(example_inputs))
    args = tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (example_inputs,)
    try:
        names = tuple(inspect.signature(model.forward).parameters)[: len(args)]
    except (TypeError, ValueError):
        names = ()
    return _Call("", model, names or tuple(f"input {place}" for place in range(len(args))), args)


def _on_cpu(value: Any) -> Any:
    """Return an input with numbers for what was only a shape."""
    if isinstance(value, list):
        return [_on_cpu(item) for item in value]
    if not isinstance(value, Tensor):
        return value
    numbers = torch.zeros(value.shape, dtype=value.dtype) if value.is_meta else value
    return numbers.to(torch.bfloat16) if numbers.is_floating_point() else numbers


def _bytes(model: nn.Module) -> int:
    return 2 * sum(parameter.numel() for parameter in model.parameters())


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}".strip()
    except Exception:  # noqa: BLE001 - the message of a foreign error may raise as well
        return type(error).__name__


def _first_line(error: BaseException | str) -> str:
    text = error if isinstance(error, str) else _text(error)
    return text.partition("\n")[0][:300]


def _outermost(parts: list[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """Return the parts that stand in no other of them, the largest first."""
    outer: list[tuple[str, nn.Module]] = []
    for path, part in parts:
        if not outer or not path.startswith(f"{outer[-1][0]}."):
            outer.append((path, part))
    return sorted(outer, key=lambda item: -sum(parameter.numel() for parameter in item[1].parameters()))


def _list_methods(part: nn.Module) -> tuple[str, ...]:
    """Return what a part is run by: its forward, or what a class without one has instead."""
    if type(part).forward is not nn.Module.forward:
        return ("forward",)
    return tuple(name for name in read_facts("inputs.toml")["methods"] if callable(getattr(type(part), name, None)))


def _callable(part: nn.Module, method: str) -> Callable[..., Any]:
    """Return what calls a method; a forward is called through the module, so that its hooks see it."""
    return part if method == "forward" else cast("Callable[..., Any]", getattr(part, method))


def _is_model(part: nn.Module) -> bool:
    """Tell whether something is a model of its own: of transformers or diffusers, or made like one."""
    return hasattr(type(part), "main_input_name") or hasattr(type(part), "config_name")


def _has_unreached_blocks(part: nn.Module, called: set[int]) -> bool:
    """Tell whether a repeated block of a part was not called, nor anything in it."""
    lists = (held for held in part.modules() if isinstance(held, nn.ModuleList | nn.Sequential))
    return any(_is_unreached_block(block, called) for held in lists for block in held)


def _is_unreached_block(block: nn.Module | None, called: set[int]) -> bool:
    """A single layer is no block, in lists they are often read, not called; nor is a ``None`` among them."""
    if block is None:
        return False
    return next(block.children(), None) is not None and not any(id(inner) in called for inner in block.modules())
