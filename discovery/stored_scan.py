"""The scan of a stored model, on a hub or in a folder: from its configuration and the headers of its weights.

No weight is read, and no code of a repository is ever imported. Where the installed library has the architecture,
its class is built from the configuration on meta and traced, and the stored names are compared with it. Else kinds
and roles come from the names and shapes that the headers list.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import prod
from typing import Any

from ..domain.architectures import Architecture, StoredFacts
from ..domain.scans import Scan
from ..domain.submissions import ListedLayer
from ..errors import (
    InvalidReference,
    InvalidRequest,
    NoAdaptableLayers,
    ScanFailed,
    UnknownArchitecture,
    WeightsUnreadable,
)
from ..extras import require
from ..weights import (
    GgufHeader,
    Index,
    StoredLayer,
    Weight,
    Weights,
    compare,
    identify,
    read_sent,
    read_weights,
    unpack,
)
from .config_scan import check_config, scan_config
from .gguf_scan import ADAPTER, ARCHITECTURE, read_configuration, rename_as_model
from .listing_scan import IN_PROJ, scan_listing
from .scanner import scan_built, scan_module
from .sources import LISTABLE, diffusers

BUILT_ELSEWHERE = ("timm", "diffusers")
"""Libraries with configurations of their own form."""

WEIGHT, BIAS = ".weight", ".bias"
NAMES_ALONE = "an index has no shapes: only the names were compared"


def is_stored(text: str) -> bool:
    """Return whether a reference names a stored model."""
    return text.strip().startswith(("hub:", "file:"))


def scan_stored(text: str, *, for_others: bool = False) -> Scan:
    """Scan a stored model.

    Args:
        text: ``hub:org/repo``, with a subfolder or ``@revision`` if needed, or ``file:PATH`` of a folder or a file.
        for_others: Whether another person requests it: no token is sent, and no file of this machine is read.

    Raises:
        InvalidReference: If it is no stored model.
        HubFailed: If the hub does not give the files.
        WeightsUnreadable: If its weights have no header that can be read.
        InvalidRequest: If its configuration is too large, or a number in it is absurd.
        NoAdaptableLayers: If an adapter could be put on none of its layers.
        MissingExtra: If huggingface_hub is not installed.
    """
    weights = read_weights(text, for_others=for_others)
    if weights.gguf is not None:
        return _scan_gguf(weights, weights.gguf)
    layers = unpack(weights.tensors, weights.config)
    return _compare(weights.config, layers, _describe(weights, layers))


def scan_files(files: Mapping[str, bytes]) -> Scan:
    """Scan the model that sent files describe: a configuration, headers of weights, an index, or several of them.

    Args:
        files: The content of the files, or its beginning, by name.

    Raises:
        WeightsUnreadable: If a file is of no kind that is read, or an index came without anything that has shapes.
        LoradarError: As ``scan_stored``.
    """
    sent = read_sent(files)
    shown = ", ".join(sent.names)
    weights = Weights(shown, sent.config, sent.tensors, sent.headers, sent.headers, 0, sent.assumed, sent.gguf)
    if sent.gguf is not None:
        return _scan_gguf(weights, sent.gguf)
    if sent.tensors:
        layers = unpack(sent.tensors, sent.config)
        return _compare(sent.config, layers, _describe(weights, layers))
    if not sent.config:
        message = f"{shown} lists names without shapes. Send config.json with it, or the header of a file it names."
        raise WeightsUnreadable(message, file=shown)
    architecture = identify(sent.config)
    if architecture.library in BUILT_ELSEWHERE:
        built, why_not = _build(architecture, sent.config)
        if built is None:
            raise UnknownArchitecture(architecture.name, (), why_not, library=architecture.library)
    else:
        built = scan_config(sent.config)
    return replace(built, stored=_check_names(built, sent.index, weights)) if sent.index else built


def _check_names(scan: Scan, index: Index, weights: Weights) -> StoredFacts:
    """Return the facts read from an index alone, which has names and no shapes: these are taken from the scan."""
    shapes = {tail: layer.shape for layer in scan.layers for tail in _list_tails(layer.path)}
    paths = (name.removesuffix(WEIGHT) for name in index.files if not name.endswith(BIAS))
    tails = ((path, next((tail for tail in _list_tails(path) if tail in shapes), None)) for path in paths)
    layers = [StoredLayer(path, shapes[tail] if tail else ()) for path, tail in tails]
    facts = _describe(replace(weights, files=len(index.shards), assumed=(NAMES_ALONE,)), layers)
    return _check_fit(scan, None, layers, replace(facts, tensors=len(index.files)))


def _list_tails(path: str) -> Iterator[str]:
    """Yield a path without its first parts, up to the first number: the same layer under other prefixes."""
    segments = path.split(".")
    for start, segment in enumerate(segments):
        yield ".".join(segments[start:])
        if segment.isdecimal():
            return


def _scan_gguf(weights: Weights, header: GgufHeader) -> Scan:
    """Scan the model in a file of llama.cpp, whose names and configuration are translated where they are known."""
    if header.metadata.get("general.type") == ADAPTER:
        message = f"{weights.reference} is an adapter of llama.cpp, no model. Examine it with: loradar doctor"
        raise InvalidReference(message, reference=weights.reference)
    config = weights.config or read_configuration(header)
    layers = unpack(weights.tensors, config)
    facts = _describe(weights, layers)
    facts = replace(facts, packed=tuple(f"{name} ({count} weights)" for name, count in header.quantised.items()))
    built, why_not = _build(identify(config), config)
    if built is None:
        architecture = identify(config) if config else Architecture("torch", "unnamed")
        name = header.metadata.get(ARCHITECTURE)
        said = (
            f"GGUF states the architecture {str(name)[:80]!r}, which transformers does not read: " if not config else ""
        )
        listed = _scan_listed(architecture, layers)
        return replace(listed, proof=f"{said}{why_not}: {listed.proof}", stored=facts)
    names, note = rename_as_model(header, [layer.path for layer in built.layers])
    layers = tuple(replace(layer, path=names.get(layer.path, layer.path)) for layer in layers)
    return _compare(config, layers, replace(facts, notes=(*facts.notes, note) if note else facts.notes), built)


def _compare(
    config: Mapping[str, Any], layers: Sequence[StoredLayer], facts: StoredFacts, built: Scan | None = None
) -> Scan:
    """Return the scan of the model that a configuration describes, compared with the stored weights; else of these."""
    architecture = identify(config)
    why_not = ""
    if built is None:
        built, why_not = _build(architecture, config)
    if built is None:
        listed = _scan_listed(architecture, layers)
        return replace(listed, proof=f"{why_not}: {listed.proof}", stored=facts)
    with suppress(NoAdaptableLayers, InvalidRequest):  # without roles of the stored names, these alone are compared
        listed = _scan_listed(architecture, layers)
        return replace(built, stored=_check_fit(built, listed, layers, facts))
    return replace(built, stored=_check_fit(built, None, layers, facts))


def scan_configured(config: Mapping[str, Any], method: str = "auto") -> tuple[Scan | None, str]:
    """Return the scan of the model that a ``config.json`` of any library describes; ``None`` and why if none is."""
    return _build(identify(config), config, method)


def _build(architecture: Architecture, config: Mapping[str, Any], method: str = "auto") -> tuple[Scan | None, str]:
    """Return the scan of the model that a configuration describes; ``None`` and the reason if it is not built."""
    library = architecture.library
    if library not in LISTABLE:
        return None, "no configuration names its architecture"
    try:
        if library == "transformers":
            return scan_config(config, method), ""
        require("scan", library)
        if library == "timm":  # the classes of a checkpoint change the head alone
            return scan_built(architecture.reference, method=method), ""
        check_config(config)
        return scan_module(diffusers.build_configured(architecture.name, config), method=method), ""
    except UnknownArchitecture:
        return None, f"{library} as installed has no {architecture.name!r}, and code of a repository is not run"
    except ScanFailed as error:
        return None, error.message


def _scan_listed(architecture: Architecture, layers: Sequence[StoredLayer]) -> Scan:
    listed = [ListedLayer(layer.path, layer.shape) for layer in layers]
    norms = frozenset(layer.path for layer in layers if layer.is_weight and len(layer.shape) == 1)
    return scan_listing(architecture, listed, norms)


def _describe(weights: Weights, layers: Sequence[StoredLayer]) -> StoredFacts:
    """Return the facts read from the stored weights."""
    packed = Counter(layer.packed for layer in layers if layer.packed)
    notes = list(weights.assumed)
    unknown = sum(layer.is_assumed for layer in layers)
    if unknown:
        notes.append(f"the sides of {unknown} packed matrices are not stored: their size is right, their shape is not")
    return StoredFacts(
        tensors=len(weights.tensors),
        files=weights.files,
        headers=weights.headers,
        transferred=weights.transferred,
        packed=tuple(f"{name} ({count} weights)" for name, count in packed.most_common()),
        notes=tuple(notes),
    )


def _check_fit(scan: Scan, listed: Scan | None, layers: Sequence[StoredLayer], facts: StoredFacts) -> StoredFacts:
    """Return the facts read from the stored weights, compared with the layers of the scan of a build."""
    tied = {layer.path for layer in scan.layers if layer.tied_to}
    stored = [weight for weight in _list_stored(scan, listed, layers) if weight.path not in tied]
    fit = compare([weight for weight in _list_built(scan) if weight.path not in tied], stored)
    return replace(
        facts,
        verdict=fit.verdict,
        renames=tuple(f"{ours} = {' + '.join(theirs)}" for ours, theirs in fit.renames.items()),
        missing=fit.missing,
        beyond=fit.beyond,
        shapes=fit.shapes,
    )


def _list_built(scan: Scan) -> Iterator[Weight]:
    """Yield the weights of a build; all in a module at the top that holds a head and no block is made for a task."""
    heads = {layer.path.split(".")[0] for layer in scan.layers if layer.role == "head"}
    heads -= {layer.path.split(".")[0] for layer in scan.layers if layer.block}
    for layer in scan.layers:
        yield Weight(layer.path, layer.shape, "head" if layer.path.split(".")[0] in heads else layer.role)


def _list_stored(scan: Scan, listed: Scan | None, layers: Sequence[StoredLayer]) -> Iterator[Weight]:
    """Yield the stored weights, with the sides of the build's where packing has lost them."""
    known = {prod(layer.shape): layer.shape for layer in scan.layers}
    roles = {layer.path: layer.role for layer in listed.layers} if listed else {}
    for layer in layers:
        shape = known.get(prod(layer.shape), layer.shape) if layer.is_assumed else layer.shape
        path = layer.path.removesuffix(f".{IN_PROJ}")
        yield Weight(path, shape, roles.get(path, "other"))
