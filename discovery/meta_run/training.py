"""Run training steps on the meta device, and count the bytes that each operation makes and frees.

Autograd works on meta as on any device: it keeps the same tensors for the backward, and frees them at the same time. So
the count is torch's own, but for what a kernel allocates and frees inside. Functions that choose a kernel by the device
are replaced by the kernel of the device that is meant.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from ...errors import ScanFailed
from ..facts.model_facts import identify
from ..facts.wrapped import is_compiled, shape_of
from .conditions import TimeLimit, plain_settings, untouched, weights_on_meta
from .fake_values import FakeValues
from .inputs import Plan
from .kernels import Device, Kernels, LiveBytes
from .session import MOST_ATTEMPTS, Call, Planned, Session
from .tensor_values import list_outputs

SECONDS = 60.0
"""Time for finding inputs, and for each step."""
LENGTH = 2048
"""Tokens of a text where none are asked for, if the model takes as many."""
EXPERTS = "grouped_mm"
"""The implementation of experts that training uses, whose size does not depend on which token goes where."""
LENGTHS = ("text", "tokens", "targets")
"""The sizes of ``data/inputs.toml`` that the length of a text decides."""
_MOST_POSITIONS = ("max_position_embeddings", "n_positions", "max_target_positions", "max_seq_len")
_SAVED_ON_CPU = 64
"""Elements of a buffer whose values a forward may read."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The bytes of one training step beside the weights and the state of the optimizer.

    Attributes:
        saved: Bytes at the end of the forward: what autograd keeps, and the outputs.
        peak: The most bytes at one time, gradients included.
        attention: How often attention ran as one kernel (``fused``), and with its scores stored (``plain``).
        has_labels: Whether the loss is the model's own, of labels.
    """

    saved: int
    peak: int
    attention: Mapping[str, int]
    has_labels: bool


class _Step:
    """A watch of a session: run a forward, its loss and its backward, and count."""

    def __init__(self, model: nn.Module, device: Device) -> None:
        self.usage: Usage | None = None
        self._model = model
        self._device = device

    def __call__(self, forward: Callable[[], Any]) -> None:
        """Run one step in train mode; the model's own ``train`` may keep parts of it in eval mode."""
        self._model.train()
        parameters = [*self._model.parameters()]
        try:
            with LiveBytes((*parameters, *self._model.buffers())) as live, Kernels(self._device) as kernels:
                with torch.enable_grad():
                    result = forward()
                    own = _own_loss(result)
                    loss = _any_loss(result) if own is None else own
                saved = live.now
                loss.backward()  # type: ignore[no-untyped-call]
                self.usage = Usage(saved, live.peak, dict(kernels.attention), own is not None)
        finally:
            for parameter in parameters:
                parameter.grad = None


def _own_loss(result: Any) -> Tensor | None:
    """Return the loss a model has computed itself, if it did."""
    loss = result.get("loss") if isinstance(result, Mapping) else getattr(result, "loss", None)
    return loss.sum() if isinstance(loss, Tensor) and loss.requires_grad else None


def _any_loss(result: Any) -> Tensor:
    """Return the mean squares of all outputs, added."""
    outputs = {id(tensor): tensor for tensor in list_outputs(result) if tensor.requires_grad}
    if not outputs:
        raise RuntimeError("no output depends on a trained weight")
    real = (torch.view_as_real(output) if output.is_complex() else output for output in outputs.values())
    return torch.stack([output.float().square().mean() for output in real]).sum()


# --- the steps of a model ---------------------------------------------------------------------------------------------


class Rehearsal:
    """Training steps of one model with inputs of one size.

    Args:
        model: On meta; adapters may be put in and taken out between steps.
        batch: Samples.
        length: Tokens of a text; by default ``LENGTH``, or as many as the model takes.
        device: The device whose kernels are meant.
        example_inputs: Inputs to use as they are, as in ``scan``.

    Attributes:
        shapes: The shape of each input; after a step those of its own.

    Raises:
        ScanFailed: If no forward of the model runs.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: int,
        length: int | None = None,
        device: Device = "cuda",
        example_inputs: Any = None,
    ) -> None:
        self._model = model
        self._device: Device = device

        def run(forward: Callable[[], Any]) -> None:
            with Kernels(device):
                forward()

        session = Session(model, run, TimeLimit(SECONDS))
        with _on_meta(model):
            if example_inputs is not None:
                session.run_examples(model, example_inputs)
                self._calls = [session.whole] if session.whole else []
            else:
                session.run("", model, model, MOST_ATTEMPTS)
                whole = [planned for planned in session.successes if planned.path == ""]
                self._calls = _make_calls(whole[-1], batch, length) if session.whole else []
        if not self._calls:
            reference = identify(model).reference
            cause = next((run.error for run in reversed(session.runs) if run.error), "it has none")
            way_out = (
                "Give example_inputs that it runs with on meta" if example_inputs is not None else "Give example_inputs"
            )
            message = f"No forward of {reference} runs ({cause}). {way_out}."
            raise ScanFailed(message, reference=reference, cause=cause)
        self.shapes = _list_shapes(self._calls[0][0])

    def measure(self, checkpointed: Iterable[str] = ()) -> Usage:
        """Run one step; blocks at these paths are computed again in the backward instead of being kept.

        Raises:
            ScanFailed: If it does not run with inputs of this size.
        """
        step, text = _Step(self._model, self._device), ""
        for call, plan in self._calls:
            session = Session(self._model, step, TimeLimit(SECONDS))
            modes = (FakeValues(plan.constants), Kernels(self._device))
            with _on_meta(self._model), checkpointing(self._model, checkpointed, modes):
                failure = session.attempt(call, plan)
            if failure is None and step.usage is not None:
                self.shapes = _list_shapes(call)
                return step.usage
            text = failure.text.partition("\n")[0][:200] if failure else ""
        reference = identify(self._model).reference
        sizes = ", ".join(f"{name} {list(shape)}" for name, shape in self.shapes.items())
        message = f"A training step of {reference} does not run with {sizes} ({text}). Give another batch or length."
        raise ScanFailed(message, reference=reference, cause=text)


def _list_shapes(call: Call) -> dict[str, tuple[int, ...]]:
    given = {**dict(zip(call.names, call.args, strict=False)), **call.named}
    return {name: tuple(value.shape) for name, value in given.items() if isinstance(value, Tensor)}


@contextmanager
def _on_meta(model: nn.Module) -> Iterator[None]:
    with untouched(model), plain_settings(model, EXPERTS), weights_on_meta(model):
        yield


def _make_calls(found: Planned, batch: int, length: int | None) -> list[tuple[Call, Plan]]:
    """Return the call with inputs of a size: with labels, which not every loss takes, then without."""
    if length is None:
        most = found.inputs.find_field(_MOST_POSITIONS)
        length = min(LENGTH, most) if isinstance(most, int) and most > 0 else LENGTH
    sizes = {**found.plan.sizes, **dict.fromkeys(LENGTHS, length)}
    plan = replace(found.plan, batch=batch, sizes=sizes)
    call = replace(found, plan=plan).call()
    ids = call.named.get("decoder_input_ids", call.named.get("input_ids"))
    calls = [(call, plan)]
    if isinstance(ids, Tensor) and found.inputs.takes("labels"):
        labels = torch.ones(ids.shape, dtype=torch.long, device="meta")
        calls.insert(0, (replace(call, named={**call.named, "labels": labels}), plan))
    return calls


@contextmanager
def checkpointing(model: nn.Module, paths: Iterable[str], modes: Iterable[TorchFunctionMode]) -> Iterator[None]:
    """Let blocks keep nothing but their inputs inside, as ``gradient_checkpointing_enable`` of transformers does.

    A backward leaves every mode of the forward; ``modes`` are those to compute again in.
    """

    @contextmanager
    def again() -> Iterator[None]:
        with ExitStack() as stack:
            for mode in modes:
                stack.enter_context(mode)
            yield

    blocks = [model.get_submodule(path) for path in paths]
    blocks = [block for block in blocks if type(block).forward is not nn.Module.forward and not is_compiled(block)]
    own = [block.__dict__.get("forward") for block in blocks]
    for block in blocks:
        how: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
        how["context_fn"] = lambda: (nullcontext(), again())
        block.__dict__["forward"] = partial(checkpoint, block.forward, **how)
    try:
        yield
    finally:
        for block, forward in zip(blocks, own, strict=True):
            block.__dict__.pop("forward", None)
            if forward is not None:
                block.__dict__["forward"] = forward


def copy_to_meta(model: nn.Module) -> nn.Module:
    """Return a copy of a model on meta, whose weights are not copied; small buffers keep their values.

    Raises:
        ScanFailed: If an attribute of the model cannot be copied.
    """
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        empty = torch.empty(shape_of(tensor), dtype=tensor.dtype, device="meta")
        if isinstance(tensor, nn.Parameter):
            memo[id(tensor)] = nn.Parameter(empty, requires_grad=tensor.requires_grad)
        elif tensor.is_floating_point() and tensor.numel() > _SAVED_ON_CPU:
            memo[id(tensor)] = empty
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # attributes of a user's module may be anything
        cause = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        message = f"{type(model).__name__} cannot be copied to meta ({cause}). Build it under torch.device('meta')."
        raise ScanFailed(message, cause=cause) from error
