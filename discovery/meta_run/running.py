"""Run a model's own forward on the meta device, with inputs made for it, so that a watcher can record it."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ..facts.source_inspection import depends_on_mode
from .conditions import TimeLimit, plain_settings, remove_chance, untouched, weights_on_cpu, weights_on_meta
from .inputs import Plan
from .session import MOST_ATTEMPTS, Call, Planned, Run, Session, Watch

MOST_BYTES = 4 << 30
"""Weights in half precision up to which a model that fails on meta is run on the CPU."""
SECONDS = 20.0

AXES = ("space", "time")
"""Axes of the sizes in ``data/inputs.toml`` that may be smaller."""
MOST_RESULTS = 192 << 20
"""Results of a forward in single precision up to which it is computed as it is; its gradients keep most of them."""
MOST_OPERATIONS = 3e10
"""Multiplications of a forward up to which it is computed as it is; a proof takes about ten times as many."""
_SINGLE = 4

__all__ = ["Run", "compute_model", "run_model"]


def run_model(
    model: nn.Module,
    watch: Watch,
    example_inputs: Any = None,
    seconds: float | None = None,
    watch_training: Watch | None = None,
) -> tuple[Run, ...]:
    """Run the forward of ``model``, then of every part with repeated blocks that were not reached.

    ``watch`` is given the forward of each attempt, which raises the model's errors. The model is restored, and its
    weights are not computed with unless example inputs do not run on meta.

    Args:
        model: On any device, meta included.
        watch: Calls the forward of each attempt.
        example_inputs: A tensor, a tuple of positional or a mapping of named inputs, instead of made ones.
        seconds: Processor time for everything, by default ``SECONDS``; a forward that takes longer is interrupted.
        watch_training: Calls the forward of the whole model again, in train mode without chance, if one finished on
            meta and code of the model depends on its mode.
    """
    session = Session(model, watch, TimeLimit(SECONDS if seconds is None else seconds))
    with untouched(model), plain_settings(model):
        ran = example_inputs is not None and session.run_examples(model, example_inputs)
        with weights_on_meta(model):
            if not ran:
                session.run("", model, model, MOST_ATTEMPTS)
            session.run_inside("", model, model)
            classes: set[Any] = {type(module) for module in model.modules()}
            if watch_training and session.whole and any(depends_on_mode(each) for each in classes):
                _run_in_training(model, Session(model, watch_training, session.limit), *session.whole)
        size = 2 * sum(parameter.numel() for parameter in model.parameters())
        if size <= MOST_BYTES and not any(run.error is None for run in session.runs):
            with weights_on_cpu(model):
                session.run_on_cpu(model)
    return tuple(session.runs)


def _run_in_training(model: nn.Module, session: Session, call: Call, plan: Plan) -> None:
    """Run a forward in train mode; the model's own ``train`` may keep parts of it in eval mode."""
    with suppress(Exception):  # a user's method may raise anything
        model.train()
        remove_chance(model)
        session.attempt(call, plan)


def compute_model(model: nn.Module, watch: Watch, seconds: float | None = None) -> tuple[Run, ...]:
    """Find inputs for a model and its parts on meta, then run them with real numbers on the CPU.

    The model may be changed by it: this is for builds that are thrown away.

    Args:
        model: On the CPU, with weights to compute with.
        watch: Calls each forward that computes.
        seconds: Processor time for everything, by default ``SECONDS``.
    """
    limit = TimeLimit(SECONDS if seconds is None else seconds)
    on_meta_only = Session(model, lambda forward: forward(), limit)
    with untouched(model), plain_settings(model), weights_on_meta(model):
        on_meta_only.run("", model, model, MOST_ATTEMPTS)
        on_meta_only.run_inside("", model, model)
        successes = [_shrink(model, success, limit) for success in on_meta_only.successes]
    session = Session(model, watch, limit)
    with plain_settings(model, experts="eager"):
        for success in successes:
            session.compute(success)
    return tuple(session.runs if successes else on_meta_only.runs)


def _shrink(model: nn.Module, success: Planned, limit: TimeLimit) -> Planned:
    """Return a run with smaller inputs, as long as it costs too much, still runs and still reaches the same modules."""
    costs = _CostWatch()
    session = Session(model, costs, limit)
    if session.attempt(success.call(), success.plan) is not None:
        return success
    reached, cost = session.reached, costs.cost
    while cost.excess > 1 and not session.is_over:
        for axes in (AXES, *((axis,) for axis in AXES)):  # all of them at once, then each alone
            known = success.plan.divisors
            divisors = {**known, **{axis: 2 * known.get(axis, 1) for axis in axes}}
            smaller = replace(success, plan=replace(success.plan, divisors=divisors))
            is_run = session.attempt(smaller.call(), smaller.plan) is None
            if is_run and session.reached == reached and costs.cost.excess < cost.excess:
                success, cost = smaller, costs.cost
                break
        else:
            break
    return success


class _Cost(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch annotates neither
    """Count the results and the multiplications of the operations within a ``with`` block.

    Attributes:
        bytes: Size of the results in single precision, views left out.
        operations: Floating-point operations of products and convolutions.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``func`` and count it."""
        del types
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            made = (leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))
            self.bytes += _SINGLE * sum(tensor.numel() for tensor in made)
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.operations += count(*args, **(kwargs or {}), out_val=result)
        return result

    @property
    def excess(self) -> float:
        """How many times more than is computed as it is."""
        return max(self.bytes / MOST_RESULTS, self.operations / MOST_OPERATIONS)


class _CostWatch:
    """Run forwards on meta and keep the cost of the last one."""

    def __init__(self) -> None:
        self.cost = _Cost()

    def __call__(self, forward: Callable[[], Any]) -> None:
        """Run one forward."""
        with _Cost() as cost:
            forward()
        self.cost = cost
