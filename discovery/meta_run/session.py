"""A session: the runs of one model and its parts, each with sets of inputs tried until one fits."""

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
from torch.utils._pytree import tree_leaves

from ...data import read_facts
from .conditions import TimeLimit, time_limit, weights_on_meta
from .fake_values import FakeValues
from .input_search import NAMES_ONLY, Failure, Search
from .inputs import Inputs, Plan, as_floats, as_real, as_small
from .stand_ins import has_own_forward, stand_in
from .tensor_values import map_tensors, on_meta

_INDEX = re.compile(r"\d+")
Watch = Callable[[Callable[[], Any]], None]
"""A function that calls the forward it is given, once or more often, and records it."""

MOST_ATTEMPTS = 24
"""Sets of inputs tried for a model."""
FEWER_ATTEMPTS = 10
"""Sets of inputs tried for a part of a model that is no model of its own."""
CPU_ATTEMPTS = 3
MOST_FAILURES = 60
"""Attempts that may fail before the rest of a model is given up."""
MOST_WASTE = 6.0
"""Seconds of computing that may go into attempts that fail."""


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt at a forward.

    Attributes:
        path: The sub-model that was run; empty for the whole model.
        inputs: Names of its inputs.
        device: ``meta`` or ``cpu``; with example inputs that do not run on meta, the model's device.
        error: Why it did not finish, in one line; ``None`` if it did.
    """

    path: str
    inputs: tuple[str, ...]
    device: str
    error: str | None


@dataclass(frozen=True, slots=True)
class Call:
    """A forward and its arguments."""

    path: str
    forward: Callable[..., Any]
    names: tuple[str, ...]
    args: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Planned:
    """A forward and a plan of its inputs."""

    path: str
    forward: Callable[..., Any]
    inputs: Inputs
    plan: Plan

    def call(self, change: Callable[[Tensor], Tensor] | None = None) -> Call:
        """Return the call with the inputs made, and their tensors changed."""
        named = self.inputs.make(self.plan)
        named = map_tensors(change, named) if change else named
        return Call(self.path, self.forward, self.inputs.given(self.plan), named=named)


class Trail:
    """The modules a forward entered, and the shape of the last one's input."""

    def __init__(self) -> None:
        self.modules: list[nn.Module] = []
        self.shape: tuple[int, ...] | None = None

    def enter(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        """Record a module whose forward begins."""
        self.modules.append(module)
        self.shape = None
        if arguments and isinstance(arguments[0], Tensor):
            with torch._C.DisableTorchFunction():  # noqa: SLF001 - torch's public name for it enters no context
                self.shape = tuple(arguments[0].shape)


class Session:
    """The runs of one model, and the modules they reached.

    Attributes:
        whole: The call of the model's own forward that finished on meta, with its plan, if one did.
        reached: The modules, by ``id``, that the last finished forward entered.
    """

    def __init__(self, model: nn.Module, watch: Watch, limit: TimeLimit) -> None:
        self.runs: list[Run] = []
        self.successes: list[Planned] = []
        self.whole: tuple[Call, Plan] | None = None
        self.reached: frozenset[int] = frozenset()
        self.limit = limit
        self._model = model
        self._watch = watch
        self._called: set[int] = set()
        self._failed: list[tuple[str, tuple[str, ...]]] = []
        self._worked: dict[tuple[type[nn.Module], str], Plan] = {}
        self._alike: set[tuple[str, frozenset[tuple[str, type[nn.Module]]]]] = set()
        self._failures, self._waste = 0, 0.0

    @property
    def is_over(self) -> bool:
        """Whether no time is left, or too many attempts failed."""
        is_hopeless = self._failures >= MOST_FAILURES or self._waste >= MOST_WASTE
        return is_hopeless or self.limit.left <= 0

    # --- which parts to run --------------------------------------------------------------------------------------

    def run(self, path: str, part: nn.Module, around: nn.Module, attempts: int) -> None:
        """Try sets of inputs on a part until its forward finishes, or the methods it has instead of one."""
        if isinstance(part, nn.ModuleList | nn.ModuleDict):
            return
        methods = _list_methods(part)
        if not methods and (not path or _is_model(part)):
            self.runs.append(Run(path, (), "meta", f"{type(part).__name__} has no forward."))
        for method in methods:
            self.run_method(path, part, method, around, attempts)

    def run_inside(self, path: str, part: nn.Module, around: nn.Module) -> None:
        """Run the outermost models in a part that has blocks which were not reached, then its children."""
        if not self._is_unfinished(part):
            return
        around = part if "config" in part.__dict__ else around
        for name, inner in _outermost_models(part):
            if self._is_unfinished(inner):
                self._run_within(f"{path}.{name}".lstrip("."), inner, around, MOST_ATTEMPTS)
        for name, child in part.named_children():
            is_lone = isinstance(part, nn.ModuleList) and _is_unreached_block(child, self._called)
            if (is_lone or self._is_unfinished(child)) and not _is_model(child):
                self._run_within(f"{path}.{name}".lstrip("."), child, around, FEWER_ATTEMPTS)

    def _run_within(self, path: str, part: nn.Module, around: nn.Module, attempts: int) -> None:
        """Run a part and the parts inside; of parts that differ only by number, the first one stands for all."""
        names = frozenset((_INDEX.sub("*", name), type(inner)) for name, inner in part.named_modules())
        key = _INDEX.sub("*", path), names
        if key not in self._alike:
            self._alike.add(key)
            self.run(path, part, around, attempts)
            self.run_inside(path, part, around)

    def _is_unfinished(self, part: nn.Module) -> bool:
        """Return whether a repeated block of a part was not called, nor anything in it, and time is left."""
        if self.is_over:
            return False
        lists = (inner for inner in part.modules() if isinstance(inner, nn.ModuleList | nn.Sequential))
        return any(_is_unreached_block(block, self._called) for blocks in lists for block in blocks)

    # --- attempts ------------------------------------------------------------------------------------------------

    def run_method(self, path: str, part: nn.Module, method: str, around: nn.Module, attempts: int) -> None:
        """Try sets of inputs on a method until it finishes."""
        inputs = self._inputs(path, part, method, around)
        if inputs is None:
            return
        given = inputs.given(Plan())
        if any(given == other and (not outer or path.startswith(f"{outer}.")) for outer, other in self._failed):
            return  # a model around it failed with the same inputs: that of a head around its base, say
        search = Search(inputs, self._worked.get((type(part), method), Plan()))
        for _ in range(attempts):
            plan = search.next_plan()
            if plan is None or self.is_over:
                break
            planned = Planned(path, _callable(part, method), inputs, plan)
            failure = self.attempt(planned.call(), plan)
            if failure is None:
                self._worked[type(part), method] = plan
                self.successes.append(planned)
                if not path and method == "forward":
                    self.whole = planned.call(), plan
                self.run_with_more(planned, part)
                return
            search.learn(failure)
        self._failed.append((path, given))

    def run_with_more(self, success: Planned, part: nn.Module) -> None:
        """Run again with optional inputs, while layers are left that were not reached."""
        layers = ((path, layer) for path, layer in part.named_modules() if layer._parameters)  # noqa: SLF001
        unreached = [path for path, layer in layers if id(layer) not in self._called]
        for plan in success.inputs.with_more(success.plan, unreached) if unreached else ():
            if self.is_over:
                return
            planned = replace(success, plan=plan)
            if self.attempt(planned.call(), plan) is None:
                self.successes.append(planned)
                return

    def compute(self, success: Planned) -> None:
        """Run on the CPU a forward that ran on meta: with a single sample, else with as many as there."""
        for plan in (replace(success.plan, batch=1), success.plan):
            planned = replace(success, plan=plan)
            failure = None if self.is_over else self.attempt(planned.call(as_real), None, "cpu")
            if failure is None or ("same dtype" in failure.text and self._compute_with_floats(planned)):
                return

    def _compute_with_floats(self, planned: Planned) -> bool:
        """Run on the CPU with floats in place of the indices of samples: on meta a time may be an integer.

        All of them are tried, then one after the other, because others may be the rows of an embedding.
        """
        call, floats = planned.call(as_real), planned.call(as_floats).named
        changed = [name for name in floats if _dtype(floats[name]) != _dtype(call.named[name])]
        choices = [floats, *({**call.named, name: floats[name]} for name in changed if len(changed) > 1)]
        return any(self.attempt(replace(call, named=named), None, "cpu") is None for named in choices)

    def run_examples(self, model: nn.Module, example_inputs: Any) -> bool:
        """Run a model with a user's inputs, on meta, else on its own device; return whether that finished."""
        if isinstance(example_inputs, Mapping):
            call = Call("", model, tuple(example_inputs), named=dict(example_inputs))
        else:
            args = tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (example_inputs,)
            try:
                names = tuple(inspect.signature(model.forward).parameters)[: len(args)]
            except (TypeError, ValueError):
                names = ()
            call = Call("", model, names or tuple(f"input {number}" for number in range(len(args))), args)
        with weights_on_meta(model):
            if self.attempt(call, Plan()) is None:
                self.whole = call, Plan()
                return True
        devices = {parameter.device for parameter in model.parameters()} or {torch.device("cpu")}
        if torch.device("meta") in devices:
            return False
        for parameter in model.parameters():  # a recorder turns gradients on, which are not wanted here
            parameter.requires_grad = False
        return self.attempt(call, None, str(next(iter(devices)))) is None

    def run_on_cpu(self, model: nn.Module) -> None:
        """Try the likeliest inputs of a model that fails on meta, on the CPU."""
        methods = _list_methods(model)
        inputs = self._inputs("", model, methods[0], model) if methods else None
        if inputs is None:
            return
        search = Search(inputs, Plan(batch=1))
        for _ in range(CPU_ATTEMPTS):
            plan = search.next_plan()
            if plan is None or self.is_over:
                return
            planned = Planned("", _callable(model, methods[0]), inputs, plan)
            failure = self.attempt(planned.call(as_small), None, "cpu")
            if failure is None:
                return
            search.learn(failure)

    def _inputs(self, path: str, part: nn.Module, method: str, around: nn.Module) -> Inputs | None:
        """Return the inputs of a part; on an error ``None``, with the reason recorded."""
        try:
            return Inputs(part, around, method)
        except Exception as error:  # noqa: BLE001 - signatures and configurations of others may raise anything
            if not path or _is_model(part):
                self.runs.append(Run(path, (), "meta", _first_line(_text(error))))
        return None

    def attempt(self, call: Call, plan: Plan | None, device: str = "meta") -> Failure | None:
        """Call a part once: on meta with the fake values of a plan, or without fake values if there is none."""
        fake_values = FakeValues(plan.constants) if plan is not None else None
        args, named = (on_meta(call.args), on_meta(call.named)) if fake_values else (call.args, call.named)
        trail, failure = Trail(), None
        hook = register_module_forward_pre_hook(trail.enter)
        started = time.thread_time()
        try:
            with time_limit(self.limit), fake_values or nullcontext():
                self._watch(partial(_call_forward, call.forward, args, named))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a forward may raise anything, and OutOfTime is none of Exception
            progress = fake_values.calls if fake_values else len(trail.modules)
            failure = Failure(_text(error), progress, trail.modules[-1] if trail.modules else None, trail.shape)
        finally:
            hook.remove()
        if failure is None:
            self.reached = frozenset(map(id, trail.modules))
            self._called |= self.reached
        else:
            self._failures += 1
            self._waste += time.thread_time() - started
        self.runs.append(Run(call.path, call.names, device, _first_line(failure.text) if failure else None))
        if failure is not None and fake_values and self._stand_in_for(failure.module):
            return self.attempt(call, plan, device)
        return failure

    def _stand_in_for(self, module: nn.Module | None) -> bool:
        """Let the linears of a class whose own forward failed on meta, such as in a kernel, run there from now on."""
        if module is None or "forward" in module.__dict__ or not has_own_forward(module):
            return False
        for other in self._model.modules():
            if type(other) is type(module):
                stand_in(other)
        return True


def _call_forward(forward: Callable[..., Any], args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """Return the result of a forward; reject one of names alone, if there may be one of values."""
    result = forward(*args, **named)
    leaves = tree_leaves(result) if named.get("return_dict") else ()
    if leaves and all(isinstance(leaf, str) for leaf in leaves):
        raise TypeError(NAMES_ONLY.partition(": ")[2])
    return result


def _dtype(value: Any) -> torch.dtype | None:
    return value.dtype if isinstance(value, Tensor) else None


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}".strip()
    except Exception:  # noqa: BLE001 - the message of a foreign error may raise as well
        return type(error).__name__


def _first_line(text: str) -> str:
    return text.partition("\n")[0][:300]


def _outermost_models(part: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the models in a part that stand in no other of them, the largest first."""
    outer: list[tuple[str, nn.Module]] = []
    for path, inner in part.named_modules():
        if path and _is_model(inner) and not (outer and path.startswith(f"{outer[-1][0]}.")):
            outer.append((path, inner))
    return sorted(outer, key=lambda item: -sum(parameter.numel() for parameter in item[1].parameters()))


def _list_methods(part: nn.Module) -> tuple[str, ...]:
    """Return the methods to run a part by: its forward, or the methods of a class without one."""
    if type(part).forward is not nn.Module.forward:
        return ("forward",)
    return tuple(name for name in read_facts("inputs.toml")["methods"] if callable(getattr(type(part), name, None)))


def _callable(part: nn.Module, method: str) -> Callable[..., Any]:
    """Return a method of a part; a forward is called through the module, so that its hooks run."""
    return part if method == "forward" else cast("Callable[..., Any]", getattr(part, method))


def _is_model(part: nn.Module) -> bool:
    """Return whether a module is a model of its own: of transformers or diffusers, or made like one."""
    return hasattr(type(part), "main_input_name") or hasattr(type(part), "config_name")


def _is_unreached_block(block: nn.Module | None, called: set[int]) -> bool:
    """Return whether a block was not called, nor anything in it.

    A single layer is no block, in lists they are often read, not called; nor is a ``None`` among them.
    """
    if block is None:
        return False
    return next(block.children(), None) is not None and not any(id(inner) in called for inner in block.modules())
