"""``rank_layers``: which layers of a model matter most for a batch of data, and the targets for a budget."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..discovery import check_unwrapped, open_wrappers
from ..domain.choosing.ranks import parse_budget
from ..domain.layers import Layer
from ..domain.patterns import pattern_of
from ..domain.scans import Scan
from ..domain.selection import Choice, count_gains, make_spec, size_per_rank
from ..domain.targets import TargetSpec, find_hits
from ..domain.vocabulary import RANK, Role
from ..errors import InvalidRequest, NoAdaptableLayers, ScanFailed, quoted
from .checks import check_rank
from .targets import scan_known

Batches = Iterable[Any]
Loss = Callable[[Any, Any], Tensor]
"""Return the loss from the outputs of a forward and its batch."""
_Score = Callable[[Tensor, Tensor], Tensor]
PACKED = ("in_proj_weight", "out_proj.weight")
"""The weights of ``nn.MultiheadAttention``."""
SHOWN = 20
"""Layers in the printed table."""


def _gradient(_weight: Tensor, gradient: Tensor) -> Tensor:
    return gradient.float().square().mean().sqrt()


def _fisher(_weight: Tensor, gradient: Tensor) -> Tensor:
    return gradient.float().square().mean()


def _sensitivity(weight: Tensor, gradient: Tensor) -> Tensor:
    return (weight.detach().float() * gradient.float()).abs().mean()


METHODS: dict[str, tuple[_Score, str]] = {
    "gradient": (_gradient, "root mean square of the gradient of a weight, averaged over batches"),
    "fisher": (_fisher, "empirical Fisher information of a weight: the square of its gradient, averaged (2111.09839)"),
    "sensitivity": (_sensitivity, "size of weight times gradient, averaged over weights and batches (2303.10512)"),
}
"""The score of a layer for one batch, and its definition; per weight, so that layers of other sizes compare."""


@dataclass(frozen=True, slots=True)
class RankedLayer:
    """One layer with its score."""

    path: str
    """Path of the layer."""
    slot: str
    """Path with ``*`` in place of each index."""
    role: Role
    """Function in the model."""
    block: str | None
    """Path of the repeated block around it."""
    score: float
    """Importance; what it measures is stated by the ranking."""
    per_rank: int
    """Parameters that each rank of a LoRA on it trains."""

    @classmethod
    def of(cls, layer: Layer, score: float, per_rank: int) -> Self:
        """Return a layer with its score."""
        return cls(layer.path, pattern_of(layer.path), layer.role, layer.block, score, per_rank)


@dataclass(frozen=True, slots=True)
class LayerRanking:
    """The layers of a model by their importance for some batches, the most important first.

    Attributes:
        reference: The model.
        method: Name of the score.
        says: Its definition.
        batches: Number of batches.
        layers: The layers.
    """

    reference: str
    method: str
    says: str
    batches: int
    layers: tuple[RankedLayer, ...]
    _scan: Scan = field(repr=False, compare=False)

    def targets(self, budget: str | int, r: int = RANK) -> TargetSpec:
        """Return the targets of the most important layers whose LoRA of rank ``r`` stays within a budget.

        Layers are taken by their score until the next one does not fit; smaller ones after it may still.

        Args:
            budget: Parameters to train at most, saved modules included: a number, ``"20M"``, or a share of the model
                such as ``"0.5%"``.
            r: Rank of the adapter.

        Raises:
            InvalidRequest: If the budget cannot be read, or is too small for any layer.
        """
        scan, rank = self._scan, check_rank("r", r)
        allowed = parse_budget(budget, scan.prompt_facts.parameters)
        left, chosen = allowed - scan.beside.saved_parameters, set()
        for layer in self.layers:
            if layer.score > 0 and rank * layer.per_rank <= left:
                chosen.add(layer.path)
                left -= rank * layer.per_rank
        if not chosen:
            least = rank * min(layer.per_rank for layer in self.layers) + scan.beside.saved_parameters
            message = f"budget={budget!r} is too small for {self.reference}: the smallest adapter at r={rank} trains"
            raise InvalidRequest(f"{message} {least:,}.", field="budget", value=str(budget), smallest=least)
        layers = tuple(layer for layer in scan.layers if layer.path in chosen)
        saved = scan.proposals[0].modules_to_save or ()
        choice = Choice("LORA", layers, f"the most important by {self.method}")
        return make_spec(choice, scan.layers, scan.module_paths, scan.beside.parameter_paths, saved)

    def __str__(self) -> str:
        """Return the table of the first layers."""
        rows = [(f"{layer.score:.3g}", layer.role, layer.path) for layer in self.layers[:SHOWN]]
        widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
        lines = (f"{score:>{widths[0]}}  {role:<{widths[1]}}  {path}" for score, role, path in rows)
        more = len(self.layers) - len(rows)
        head = f"{self.reference}: {self.method}, {self.says}"
        return "\n".join((head, *lines, *((f"and {more} more",) if more > 0 else ())))


def rank_layers(
    model: nn.Module,
    batches: Batches,
    method: str = "gradient",
    *,
    loss: Loss | None = None,
    preset: str = "all-linear",
) -> LayerRanking:
    """Rank the layers of a preset by their importance for a few batches, from one backward for each.

    There is no optimizer, and no gradient is kept: each is reduced to a number as soon as it is there. The model runs
    in eval mode, and is left as it was: weights, gradients, buffers, modes, hooks and random states.

    Args:
        model: A model with weights, or ``torch.compile``, ``DataParallel`` or DDP around one.
        batches: The inputs of each forward: a mapping of named ones, a tuple of positional ones, or a tensor. One
            mapping, tuple or tensor is one batch.
        method: ``gradient``, ``fisher`` (arXiv:2111.09839) or ``sensitivity`` (arXiv:2303.10512).
        loss: Computes the loss from the outputs and the batch; by default the outputs have it, as of transformers'
            models given labels.
        preset: The layers to rank.

    Raises:
        InvalidRequest: If the method is unknown, there is no batch or loss, or weights are quantised or on meta.
        UnknownPreset: If the model has no such preset.
        NoAdaptableLayers: If it has no layer for an adapter.
        ScanFailed: If its forward fails with a batch.
    """
    if method not in METHODS:
        message = f"Unknown method {method!r}. Methods: {quoted(METHODS)}."
        raise InvalidRequest(message, field="method", value=method)
    check_unwrapped(model, is_opened=True)
    check_unwrapped(model := open_wrappers(model)[-1])
    scan = scan_known(model)
    layers = find_hits(scan.propose("LORA", preset).spec, scan.layers)
    if not layers:
        message = f"{scan.architecture.reference} has no layers to rank: {scan.propose('LORA', preset).reasons[0]}."
        raise NoAdaptableLayers(message, reference=scan.architecture.reference)
    score, says = METHODS[method]
    scores = _Scores(score, {layer.path: _list_weights(model, layer) for layer in layers})
    scores.add(model, batches, loss)
    gains = count_gains(layers, scan.beside.parameter_paths)
    ranked = [RankedLayer.of(x, scores.mean(x.path), size_per_rank(x) + gains.get(x.path, 0)) for x in layers]
    ranked.sort(key=lambda layer: -layer.score)
    return LayerRanking(scan.architecture.reference, method, says, scores.batches, tuple(ranked), scan)


def _list_weights(model: nn.Module, layer: Layer) -> list[nn.Parameter]:
    """Return the weights of a layer.

    Raises:
        InvalidRequest: If one has no values, or none with a gradient.
    """
    packed = [f"{layer.path}.{name}" for name in PACKED]
    names = packed if layer.kind == "multihead_attention" else [layer.weight_path]
    weights = [model.get_parameter(name) for name in names]
    for name, weight in zip(names, weights, strict=True):
        if weight.is_meta or not weight.is_floating_point():
            state = "on meta, without values" if weight.is_meta else f"packed as {weight.dtype}"
            message = f"{name!r} is {state}: it has no gradient. Rank the layers of the model with float weights."
            raise InvalidRequest(message, path=name)
    return weights


class _Scores:
    """The scores of weights, added over batches; each gradient is dropped once its score is taken.

    Attributes:
        batches: Number of batches.
    """

    def __init__(self, score: _Score, owned: dict[str, list[nn.Parameter]]) -> None:
        self._score, self._owned = score, owned
        self._weights = {id(weight): weight for weights in owned.values() for weight in weights}
        self._sums: dict[int, float] = dict.fromkeys(self._weights, 0.0)
        self.batches = 0

    def add(self, model: nn.Module, batches: Batches, loss: Loss | None) -> None:
        """Add the scores of batches.

        Raises:
            InvalidRequest: If there is no batch, or one has no loss.
            ScanFailed: If the forward fails with a batch.
        """
        with _kept(model), self._collect(model):
            for batch in [batches] if isinstance(batches, Mapping | tuple | Tensor) else batches:
                _run(model, batch, loss).backward()  # type: ignore[no-untyped-call]
                self.batches += 1
        if not self.batches:
            raise InvalidRequest("batches has no batch: give one or more, such as [{'input_ids': ..., 'labels': ...}].")

    def _take(self, weight: Tensor) -> None:
        gradient = weight.grad
        if gradient is not None:
            self._sums[id(weight)] += float(self._score(weight, gradient))
        weight.grad = None

    @contextmanager
    def _collect(self, model: nn.Module) -> Iterator[None]:
        """Let these weights alone have gradients inside, and take the score of each in every backward."""
        for parameter in model.parameters():
            parameter.requires_grad = id(parameter) in self._weights
        hooks: list[Any] = [
            weight.register_post_accumulate_grad_hook(self._take)  # type: ignore[no-untyped-call]
            for weight in self._weights.values()
        ]
        try:
            with torch.enable_grad():
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def mean(self, path: str) -> float:
        """Return the score of a layer for a batch: the mean of its weights, by their sizes."""
        weights = self._owned[path]
        sums = (self._sums[id(weight)] * weight.numel() for weight in weights)
        return sum(sums) / sum(weight.numel() for weight in weights) / self.batches


def _run(model: nn.Module, batch: Any, loss: Loss | None) -> Tensor:
    """Return the loss of one batch.

    Raises:
        InvalidRequest: If there is none, or it is no finite number.
        ScanFailed: If the forward fails.
    """
    try:
        if isinstance(batch, Mapping):
            outputs = model(**batch)
        else:
            outputs = model(*(batch if isinstance(batch, tuple | list) else (batch,)))
    except Exception as error:  # a forward may raise anything
        cause = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        message = f"The forward of {type(model).__name__} fails with a batch ({cause}). Give batches as it takes them."
        raise ScanFailed(message, cause=cause) from error
    own = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    found = loss(outputs, batch) if loss is not None else own
    name = type(model).__name__
    if not isinstance(found, Tensor) or not found.requires_grad:
        message = f"{name} returns no loss that depends on these layers: give labels in the batches, or loss=..."
        raise InvalidRequest(f"{message} (a function of outputs and batch).", field="loss")
    if found.numel() != 1 or not bool(found.isfinite()):
        message = f"The loss of {name} is {found.detach().flatten()[:1].tolist()} of {found.numel()}: it must be one"
        raise InvalidRequest(f"{message} finite number.", field="loss")
    return found


@contextmanager
def _kept(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode inside, and restore its modes, flags, gradients, buffers and the random states."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with torch.random.fork_rng():
            model.eval()
            for parameter, _, _ in flags:
                parameter.grad = None
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, values in buffers:
                buffer.copy_(values)
        for parameter, requires_grad, gradient in flags:
            parameter.requires_grad = requires_grad
            parameter.grad = gradient
