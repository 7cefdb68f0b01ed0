"""Run a model's own forward on the meta device, with inputs made for it, so that a watcher can record it."""

import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from torch import nn

from ..facts.source_inspection import depends_on_mode
from .conditions import plain_settings, remove_chance, untouched, weights_on_cpu, weights_on_meta
from .inputs import Plan
from .session import MOST_ATTEMPTS, Call, Planned, Run, Session, Watch
from .smaller_inputs import CostWatch, list_smaller

MOST_BYTES = 4 << 30
"""Weights in half precision up to which a model that fails on meta is run on the CPU."""
SECONDS = 20.0

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
        seconds: Time for everything, by default ``SECONDS``; a forward that takes longer is interrupted.
        watch_training: Calls the forward of the whole model again, in train mode without chance, if one finished on
            meta and code of the model depends on its mode.
    """
    session = Session(model, watch, time.monotonic() + (SECONDS if seconds is None else seconds))
    with untouched(model), plain_settings(model):
        ran = example_inputs is not None and session.run_examples(model, example_inputs)
        with weights_on_meta(model):
            if not ran:
                session.run("", model, model, MOST_ATTEMPTS)
            session.run_inside("", model, model)
            classes: set[Any] = {type(module) for module in model.modules()}
            if watch_training and session.whole and any(depends_on_mode(each) for each in classes):
                _run_in_training(model, Session(model, watch_training, session.deadline), *session.whole)
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


def compute_model(model: nn.Module, watch: Watch, seconds: float = SECONDS) -> tuple[Run, ...]:
    """Find inputs for a model and its parts on meta, then run them with real numbers on the CPU.

    The model may be changed by it: this is for builds that are thrown away.

    Args:
        model: On the CPU, with weights to compute with.
        watch: Calls each forward that computes.
        seconds: Time for everything.
    """
    deadline = time.monotonic() + seconds
    on_meta_only = Session(model, lambda forward: forward(), deadline)
    with untouched(model), plain_settings(model), weights_on_meta(model):
        on_meta_only.run("", model, model, MOST_ATTEMPTS)
        on_meta_only.run_inside("", model, model)
        successes = [_shrink(model, success, deadline) for success in on_meta_only.successes]
    session = Session(model, watch, deadline)
    with plain_settings(model, experts="eager"):
        for success in successes:
            session.compute(success)
    return tuple(session.runs if successes else on_meta_only.runs)


def _shrink(model: nn.Module, success: Planned, deadline: float) -> Planned:
    """Return a run with smaller inputs, as long as it costs too much, still runs and still reaches the same modules."""
    costs = CostWatch()
    session = Session(model, costs, deadline)
    if session.attempt(success.call(), success.plan) is not None:
        return success
    reached, cost = session.reached, costs.cost
    while cost.excess > 1 and not session.is_over:
        for divisors in list_smaller(success.plan.divisors):
            smaller = replace(success, plan=replace(success.plan, divisors=divisors))
            is_run = session.attempt(smaller.call(), smaller.plan) is None
            if is_run and session.reached == reached and costs.cost.excess < cost.excess:
                success, cost = smaller, costs.cost
                break
        else:
            break
    return success
