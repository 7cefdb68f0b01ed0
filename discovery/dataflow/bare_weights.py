"""Bare weights: matrices that a module multiplies with in its own forward, without a layer around them."""

from collections.abc import Iterable, Iterator, Mapping

from torch import nn

from ...domain.layers import Evidence, Layer
from ..facts.layers import Site
from ..facts.wrapped import own_class, shape_of
from .flow import Flow, Origin
from .operations import CONVOLUTIONS

MATRIX = 2
CONTAINERS = (nn.ParameterList, nn.ParameterDict)


def list_bare_weights(flows: Iterable[Flow], sites: Mapping[str, Site], known: Mapping[str, Layer]) -> Iterator[Layer]:
    """Yield a layer for each matrix that its module's forward multiplies with as a whole, and that is in no layer.

    A lookup of some rows, as of relative positions, is no product with a weight.
    """
    seen: set[str] = set()
    for flow in flows:
        mixed = _list_mixed(flow)
        for number, origin in enumerate(flow.origins):
            path, name = origin.layer or ("", "")
            if f"{path}.{name}" in seen or (path, name) in flow.tape.direct_reads or number in mixed:
                continue
            seen.add(f"{path}.{name}")
            site = sites.get(path)
            if site and path and not isinstance(site.module, CONTAINERS) and not _is_known(path, name, known):
                yield from _as_layer(flow, origin, site, name)


def _is_known(path: str, name: str, known: Mapping[str, Layer]) -> bool:
    """Return whether a parameter is a layer or is in one with a kind or a role."""
    is_held = path in known and (known[path].kind, known[path].role) != ("other", "other")
    return is_held or f"{path}.{name}" in known


def _list_mixed(flow: Flow) -> set[int]:
    """Return the origins that make the kernels of convolutions: mixed weights (CondConv), no features."""
    kernels = (op.inputs[1] for op in flow.tape.ops if op.name in CONVOLUTIONS and len(op.inputs) > 1)
    return {source for kernel in kernels for source, _ in flow.read(kernel)}


def _as_layer(flow: Flow, origin: Origin, site: Site, name: str) -> Iterator[Layer]:
    parameter = site.module._parameters.get(name)
    shape = shape_of(parameter) if parameter is not None else ()
    shapes, used = flow.tape.shapes, flow.tape.ops[origin.op].inputs
    weights = {shapes[value] for value in used if flow.weight_of.get(value) == origin.layer}
    if len(shape) != MATRIX or min(shape) == 1 or not weights & {shape, shape[::-1]}:
        return
    read = shapes[origin.read_values[0]][-1]
    sizes = shape if read == shape[0] else shape[::-1]  # of a square one both are the same
    owner = own_class(site.module).__name__
    says = Evidence("structure", f"{owner} multiplies with it: a bare matrix, which target_parameters names")
    yield Layer(
        path=f"{site.path}.{name}",
        kind="expert_parameter",
        class_name=owner,
        shape=shape,
        in_features=sizes[0],
        out_features=sizes[1],
        owner=owner,
        block=site.block,
        depth=site.depth,
        evidence=(says,),
    )


def list_uncalled(flows: Iterable[Flow], sites: Mapping[str, Site]) -> tuple[str, ...]:
    """Return the paths of the matrices that forwards multiply with and that are in a container of parameters.

    Such a container is never called, so an adapter on it would never run.
    """
    used = {origin.layer for flow in flows for origin in flow.origins if origin.layer is not None}
    held = ((path, name) for path, name in used if path in sites and isinstance(sites[path].module, CONTAINERS))
    return tuple(sorted(f"{path}.{name}" for path, name in held))
