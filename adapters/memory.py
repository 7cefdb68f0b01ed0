"""``plan``: the memory that training an adapter takes, before it is trained, and the largest choice that fits."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from ..data import read_facts
from ..discovery import Rehearsal, Usage, build_repo, build_subject, copy_to_meta, quantise
from ..domain.layers import Layer
from ..domain.scans import Proposal, Scan, check_preset
from ..domain.targets import TargetSpec, resolve_blocks
from ..domain.vocabulary import RECOMMENDED, STANDS_FOR, count_of, describe_bytes
from ..errors import InvalidRequest, NoAdaptableLayers
from ..references import Reference
from ..schema import dump_json
from .checks import check_rank
from .config import LoraConfig
from .entry import inject
from .memory_plan import DTYPES, FACTS, MemoryChoice, MemoryPlan, Setting, choose, describe, interpolate
from .targets import scan_known

UNITS = {
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", 1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", 1)},
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?)\s*([a-z]+)\s*")


def parse_size(size: str | float) -> int:
    """Return the bytes of a size such as ``24GB`` (powers of 1000) or ``24GiB`` (powers of 1024); a number is bytes.

    Raises:
        InvalidRequest: If it is none.
    """
    found = _SIZE.fullmatch(size.lower() if isinstance(size, str) else f"{size}b")
    count = float(found[1]) * UNITS.get(found[2], 0) if found else 0
    if count < 1:
        message = f"memory={size!r} is no size. Give a number with a unit: 24GB, 24GiB or 80000MB."
        raise InvalidRequest(message, field="memory", value=str(size))
    return int(count)


def plan(
    model_or_reference: Any,
    memory: str | float | None = None,
    *,
    presets: Sequence[str] | None = None,
    ranks: Sequence[int] | None = None,
    example_inputs: Any = None,
    **setting: Any,
) -> MemoryPlan:
    """Return the memory that training LoRA on a model takes, for each preset and rank, without weights or a GPU.

    A training step of each preset runs on the meta device at the lowest and the highest rank, with the real layers,
    autograd and loss; every tensor is counted until it is freed. Ranks between lie on the line between the two, which
    is never below the true peak. A live model is left unchanged.

    Args:
        model_or_reference: A module on any device, a transformers configuration, or a reference; ``hub:org/repo`` takes
            the configuration of a repo.
        memory: Memory of the device, such as ``"24GB"``, or bytes.
        presets: Presets to compare; by default all that the model has but ``everything``.
        ranks: Ranks to compare.
        example_inputs: Inputs of the forward, as in ``scan``, instead of ``batch`` and ``length``.
        setting: ``batch`` (1), ``length`` (tokens; 2048, or as many as the model takes), ``dtype`` (``bf16``, ``fp16``,
            ``fp32``; by default a live model's own, else ``bf16``), ``quantize`` (``nf4``, ``int8``),
            ``checkpointing``, ``optimizer`` (``adamw``, ``adamw8bit``, ``sgd``) and ``device`` (``cuda``, or ``cpu``,
            which has other kernels).

    Raises:
        InvalidRequest: If a value is none that can be planned for.
        InvalidReference: If the reference cannot be built.
        UnknownPreset: If the model has no such preset.
        ScanFailed: If no forward runs, or none with inputs of this size.
        NoAdaptableLayers: If the model has no layer for an adapter.
    """
    how = Setting.parse(setting)
    limit = None if memory is None else parse_size(memory)
    levels = _check_ranks(ranks)
    model = copy_to_meta(_build(model_or_reference))
    if how.dtype is None and not isinstance(model_or_reference, nn.Module):
        how = replace(how, dtype="bf16")
    budget = _Budget(model, how, example_inputs)
    chosen = _list_presets(budget.scan, presets)
    choices = [choice for name in chosen for choice in budget.compare(name, levels)]
    return budget.conclude(choices, chosen, limit)


def plan_sent(reference: str, sent: Mapping[str, Any]) -> bytes:
    """Return the JSON of a plan, for a worker process: ``sent`` are the other arguments of ``plan``, by name."""
    return dump_json(plan(reference, **sent))


def _build(subject: Any) -> nn.Module:
    reference = Reference.parse(subject) if isinstance(subject, str) else None
    return build_repo(reference) if reference is not None and reference.scheme == "hub" else build_subject(subject)


def _check_ranks(ranks: Sequence[int] | None) -> list[int]:
    given = read_facts(FACTS)["choice"]["ranks"] if ranks is None else list(ranks)
    if not given:
        raise InvalidRequest("ranks=[] names no rank: give one or more, such as [8, 16].", field="ranks")
    return sorted({check_rank("ranks", rank) for rank in given})


def _list_presets(scan: Scan, presets: Sequence[str] | None) -> dict[str, list[str]]:
    """Return the presets to compare, by default those of the data in its order, each with others that are the same."""
    known: dict[str, TargetSpec] = {x.preset: x.spec for x in scan.proposals if x.peft_type == "LORA"}
    if not known:
        message = f"{scan.architecture.reference} has no layer that LoRA can adapt."
        raise NoAdaptableLayers(message, reference=scan.architecture.reference)
    if STANDS_FOR[RECOMMENDED] in known:
        known.setdefault(RECOMMENDED, known[STANDS_FOR[RECOMMENDED]])
    for preset in presets or ():
        check_preset(scan.architecture.reference, preset, known)
    if presets:
        return {preset: [] for preset in presets}
    alike: dict[str, list[str]] = defaultdict(list)
    for name in (name for name in read_facts(FACTS)["choice"]["presets"] if name in known):
        ranks = scan.propose("LORA", name).rank_pattern  # experts may have their own
        alike[repr((known[name], ranks))].append(name)
    return {first: others for first, *others in alike.values()}


class _Budget:
    """The memory of one model under one setting."""

    def __init__(self, model: nn.Module, how: Setting, example_inputs: Any) -> None:
        self.how = how
        # Not the model's own ``to``, which may warn of modules that a library keeps in float32.
        self._model = nn.Module.to(model, DTYPES[how.dtype]) if how.dtype else model
        self.scan = scan_known(self._model, example_inputs)
        self._packed = _list_quantised(self.scan.layers, self._model) if how.quantize else []
        self.base = self._count_base()
        for layer in self._packed:
            quantise(self._model.get_submodule(layer.path), is_transposed=layer.kind == "transposed_linear")
        self.steps = Rehearsal(self._model, how.batch, how.length, how.device, example_inputs)
        self._blocks = _list_blocks(self.scan.layers) if how.checkpointing else ()
        self._usage: Usage | None = None

    def compare(self, preset: str, ranks: list[int]) -> Iterator[MemoryChoice]:
        """Yield the memory of one preset at each rank; between the lowest and the highest it is interpolated.

        Where experts have ranks of their own, which are rounded, every rank is measured.
        """
        proposals = {rank: self.scan.propose("LORA", preset, rank=rank) for rank in ranks}
        if any(proposal.rank_pattern for proposal in proposals.values()):
            yield from map(self._measure, proposals.values())
            return
        ends = [self._measure(proposals[rank]) for rank in sorted({ranks[0], ranks[-1]})]
        for rank in ranks:
            share = (rank - ranks[0]) / ((ranks[-1] - ranks[0]) or 1)
            yield interpolate(ends[0], ends[-1], share, rank)

    def conclude(
        self, compared: Iterable[MemoryChoice], presets: Mapping[str, list[str]], limit: int | None
    ) -> MemoryPlan:
        """Return the plan of the choices compared, with the largest that fits; ``presets`` have the others alike."""
        choices = tuple(replace(each, fits=None if limit is None else each.needed <= limit) for each in compared)
        best, architecture = choose(choices), self.scan.architecture
        alike = (f"{name}: the same layers as {', '.join(same)}" for name, same in presets.items() if same)
        return MemoryPlan(
            reference=architecture.reference,
            class_name=architecture.class_name,
            limit=limit,
            inputs=self.steps.shapes,
            choices=choices,
            chosen=best,
            says=describe(choices, best, limit, self.how),
            assumed=(*alike, *self.describe()),
        )

    def _measure(self, proposal: Proposal) -> MemoryChoice:
        spec = resolve_blocks(proposal.spec, (layer.path for layer in self.scan.layers))
        config = LoraConfig(r=proposal.rank, rank_pattern=proposal.rank_pattern or {}).with_spec(spec)
        adapted = inject(self._model, config)
        try:
            trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
            file = sum(tensor.nbytes for tensor in adapted.adapter_state().values())
            usage = self._usage = self.steps.measure(self._blocks)
        finally:
            adapted.unload()
        adapter = sum(parameter.nbytes for parameter in trained)
        state = int(sum(map(self.how.count_state, trained)))
        kept = self.base + adapter + state
        # When the optimizer steps, it holds the gradients, and on a GPU one more tensor for each parameter.
        stepping = adapter * (2 if self.how.device == "cuda" else 1)
        peak = kept + max(usage.peak, stepping)
        return MemoryChoice(
            preset=proposal.preset,
            rank=proposal.rank,
            parameters=sum(parameter.numel() for parameter in trained),
            file=file,
            base=self.base,
            adapter=adapter,
            optimizer=state,
            gradients=adapter,
            activations=usage.saved,
            peak=peak,
            needed=self._with_reserve(peak),
            fits=None,
        )

    def _with_reserve(self, peak: int) -> int:
        reserve = read_facts(FACTS)["reserve"][self.how.device]
        return int(peak * (1 + reserve["share"])) + int(reserve["fixed"])

    def _count_base(self) -> int:
        """Return the bytes of the weights and buffers, each once."""
        tensors = {id(tensor): tensor for tensor in (*self._model.parameters(), *self._model.buffers())}
        total = sum(tensor.nbytes for tensor in tensors.values())
        for layer in self._packed:
            facts = read_facts(FACTS)["quantize"][self.how.quantize]
            weight = tensors[id(self._model.get_parameter(layer.weight_path))]
            total += (
                int(weight.numel() * facts["bits"] / 8) + facts["per_row"] * (layer.out_features or 0) - weight.nbytes
            )
        return total

    def describe(self) -> Iterator[str]:
        """Yield what the figures rest on."""
        how, usage = self.how, self._usage
        shapes = ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in self.steps.shapes.items())
        yield f"inputs: {shapes}"
        dtypes = {str(p.dtype).removeprefix("torch.") for p in self._model.parameters() if p.is_floating_point()}
        yield f"weights and activations in {' and '.join(sorted(dtypes))}, no autocast; the adapter in float32"
        if self._packed:
            bits = read_facts(FACTS)["quantize"][how.quantize]["bits"]
            packed = f"{count_of(len(self._packed), 'linear')} in {how.quantize}, {bits} bits a weight (bitsandbytes)"
            yield f"{packed}; embeddings, norms, heads and fused experts are not quantised"
        yield from _describe_attention(usage)
        own = usage is not None and usage.has_labels
        yield "loss: " + ("the model's own, with labels" if own else "mean squares of the outputs, as none is known")
        kept = (
            f"kept at the inputs of {count_of(len(self._blocks), 'block')} only"
            if self._blocks
            else "all kept, no checkpointing"
        )
        yield f"activations: {kept}"
        yield f"optimizer: {how.optimizer}; its state and the gradients in the dtype of what is trained"
        reserve = read_facts(FACTS)["reserve"][how.device]
        if reserve["fixed"]:
            says = (
                f"{reserve['share']:.0%} for fragmentation and workspaces, {describe_bytes(reserve['fixed'])} for CUDA"
            )
            yield f"needed: the peak, and {says} (assumed, not measured)"


def _describe_attention(usage: Usage | None) -> Iterator[str]:
    if usage is None:
        return
    if usage.attention.get("fused"):
        yield "attention: one kernel (sdpa, flash), which stores no scores; 'eager' would store them"
    if usage.attention.get("plain"):
        yield "attention: sdpa without a fused kernel for these inputs, so that scores are stored"
    if not usage.attention:
        yield "attention: as the model's own code computes it, or none"


def _list_quantised(layers: Iterable[Layer], model: nn.Module) -> list[Layer]:
    """Return the linears that transformers converts for bitsandbytes: no head, no tied weight, not the last layer."""
    tied = {layer.tied_to for layer in layers if layer.tied_to}
    last = [name for name, _ in model.named_parameters()][-1].rpartition(".")[0]
    kinds = ("linear", "transposed_linear")
    free = (layer for layer in layers if layer.kind in kinds and layer.role != "head" and layer.tied_to is None)
    return [layer for layer in free if layer.class_name in ("Linear", "Conv1D") and layer.path not in (last, *tied)]


def _list_blocks(layers: Iterable[Layer]) -> tuple[str, ...]:
    """Return the innermost blocks of the model; a list of experts or heads in a block is none."""
    blocks = {layer.block for layer in layers if layer.block and not layer.role.startswith("expert.")}
    around = {block[:end] for block in blocks for end, letter in enumerate(block) if letter == "."}
    return tuple(sorted(blocks - around))
