"""scan: a model or a reference -> everything the scanner finds about it."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from ..domain.architectures import Architecture
from ..domain.layers import Layer
from ..domain.patterns import pattern_of
from ..domain.scans import Scan
from ..errors import InvalidReference, InvalidRequest, NoAdaptableLayers, ScanFailed, quoted
from ..references import Reference
from . import sources
from .dataflow import Trace, trace
from .evidence import judge, list_untraced
from .facts.layers import Site
from .facts.model_facts import is_configuration
from .facts.prompt_settings import read_prompt_facts
from .facts.towers import list_prefixes
from .fingerprint import fingerprint, structure
from .liveness import Builds, Proof, Recall, apply_proof, list_builds, prove_any, recall_proof
from .proposals import ADAPTABLE_KINDS, Subject, is_adaptable, propose_all, saved_heads
from .slots import make_slots
from .static import read_model, unreadable

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

METHODS = ("auto", "dataflow", "names")


def scan(
    model_or_reference: "nn.Module | PreTrainedConfig | str",
    example_inputs: Any = None,
    method: str = "auto",
    *,
    proved: bool = False,
) -> Scan:
    """Scan a model, a transformers configuration, or a reference such as ``timm:resnet50``.

    The model is left exactly as it was found: its forward runs on the meta device, without its weights.

    Args:
        model_or_reference: A live module (any device, meta included), a configuration object, or a reference.
        example_inputs: What the forward takes (a tensor, a tuple or a dictionary); made from its signature and
            configuration if not given.
        method: ``dataflow`` follows tensors through the model's own forward, ``names`` reads names, shapes and
            structure alone, ``auto`` is dataflow where a forward runs and names where none does.
        proved: Also try an adapter on every layer of a small real build, and leave the dead ones out. Of a live model
            that is a copy, if it has real weights; a reference is built smaller, with every slot of the full model.

    Raises:
        InvalidReference: If the reference cannot be parsed or its scheme cannot be scanned.
        UnknownArchitecture: If its library has no such architecture.
        ScanFailed: If it does not build, or the method is ``dataflow`` and no forward runs.
        NoAdaptableLayers: If it owns no layer an adapter could sit on.
        InvalidRequest: If the method is unknown.
    """
    if method not in METHODS:
        message = f"Unknown method {method!r}. Methods: {quoted(METHODS)}."
        raise InvalidRequest(message, method=method)
    model = _resolve(model_or_reference)
    builds = partial(list_builds, model_or_reference, model) if proved else None
    return scan_module(model, example_inputs, method, builds)


def scan_module(
    model: nn.Module,
    example_inputs: Any = None,
    method: str = "auto",
    builds: Builds | None = None,
    recall: Recall | None = None,
) -> Scan:
    """Scan a live module; see :func:`scan`.

    Args:
        model: The module.
        example_inputs: As for ``scan``.
        method: As for ``scan``.
        builds: Makes small real builds of the model, given its layers, to prove them on.
        recall: Finds what is on record of its architecture; what was proved of a model built alike holds for this one.
    """
    try:
        return _scan_module(model, example_inputs, method, builds, recall)
    except RuntimeError as error:  # attributes of a user's module may be properties that fail, or recur for ever
        raise unreadable(model, error) from error


def _scan_module(
    model: nn.Module, example_inputs: Any, method: str, builds: Builds | None, recall: Recall | None
) -> Scan:
    static = read_model(model)
    facts, module_paths = static.facts, static.module_paths
    layers = static.label_all()
    if not any(layer.kind in ADAPTABLE_KINDS for layer in layers):
        message = f"{facts.architecture.reference} has no layer an adapter could sit on ({len(module_paths)} modules)."
        raise NoAdaptableLayers(message, reference=facts.architecture.reference)
    traced = trace(model, layers, module_paths, example_inputs) if method != "names" else None
    _check_traced(traced, method, facts.architecture)
    layers = judge(layers, traced) if traced else layers
    proof: Proof | None = prove_any(builds(layers), _mergeable(layers)) if builds else None
    if recall:
        proof = proof or recall_proof(recall, model, facts.architecture, layers)
    layers = apply_proof(layers, proof) if proof else layers
    saved = saved_heads(layers, facts)
    norms = {layer.path: _count_parameters(model, (layer.path,)) for layer in layers if layer.kind == "norm"}
    subject = Subject(layers, module_paths, _parameter_paths(static.sites), norms, saved, _count_saved(model, saved))
    untraced = list_untraced(layers)
    return Scan(
        architecture=replace(
            facts.architecture,
            fingerprint=fingerprint(layers),
            structure=structure(layers) if traced and not untraced else None,
        ),
        method="dataflow" if traced else "names",
        layers=layers,
        towers=list_prefixes(static.towers),
        slots=make_slots(layers),
        proposals=propose_all(subject),
        module_paths=module_paths,
        untraced=untraced,
        proof=proof.says if proof else None,
        prompt_facts=read_prompt_facts(facts.configuration, layers),
    )


def _mergeable(layers: tuple[Layer, ...]) -> frozenset[str]:
    """Return the patterns of the layers that something may be proposed for."""
    return frozenset(pattern_of(layer.path) for layer in layers if is_adaptable(layer))


def _check_traced(traced: Trace | None, method: str, architecture: Architecture) -> None:
    if traced is None and method == "dataflow":
        message = f"No forward of {architecture.reference} runs. Give example_inputs, or scan it by names."
        raise ScanFailed(message, reference=architecture.reference)


def _parameter_paths(sites: Iterable[Site]) -> tuple[str, ...]:
    own = ((site.path, name) for site in sites for name, p in site.module._parameters.items() if p is not None)
    return tuple(f"{path}.{name}" if path else name for path, name in own)


def _resolve(subject: "nn.Module | PreTrainedConfig | str") -> nn.Module:
    if isinstance(subject, nn.Module):
        return subject
    if isinstance(subject, str):
        return sources.build(Reference.parse(subject))
    if is_configuration(subject):
        return sources.build_config(subject)
    message = f"Cannot scan a {type(subject).__name__}. Give a torch module, a transformers config or a reference."
    raise InvalidReference(message, type=type(subject).__name__)


def _count_saved(model: nn.Module, names: tuple[str, ...]) -> int:
    """Count what PEFT saves by these names: it takes every module whose path ends with one, even within a segment."""
    found = [module for path, module in model.named_modules() if names and path.endswith(names)]
    return sum({id(p): p.numel() for module in found for p in module.parameters()}.values())


def _count_parameters(model: nn.Module, paths: tuple[str, ...]) -> int:
    return sum(parameter.numel() for path in paths for parameter in model.get_submodule(path).parameters())
