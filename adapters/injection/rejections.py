"""The words for layers that cannot be adapted or saved: the module, its class, and the way out."""

from torch import nn

from ...domain.vocabulary import Kind
from ...errors import InvalidConfig, quoted
from .sites import Site

LEAVE_OUT = "Take it out of target_modules, or name it in exclude_modules."


def no_matrix(key: str, parameter: nn.Parameter | None) -> InvalidConfig:
    """Refuse a bare parameter that LoRA has no factors for."""
    shape = None if parameter is None else tuple(parameter.shape)
    message = f"target_parameters: {key!r} has shape {shape}, and is no matrix or stack of matrices in floating point."
    return InvalidConfig(f"{message} Leave it out.", path=key, shape=shape)


def no_forward(path: str, module: nn.Module) -> InvalidConfig:
    """Refuse the parameters of a list of parameters: they are read, and nothing is called."""
    return _refuse(path, module, "is only a list, which nobody calls: an adapter there would be dead", LEAVE_OUT)


def both_ways(path: str, module: nn.Module) -> InvalidConfig:
    """Refuse a module that is targeted as a whole and by one of its parameters."""
    way_out = "Name it in target_modules or its parameters in target_parameters."
    return _refuse(path, module, "is targeted twice, as a module and by a parameter", way_out)


def own_grouped(path: str, module: nn.Module) -> InvalidConfig:
    """Refuse a grouped convolution with a forward of its own: it has no weight that the update could be part of."""
    why = f"has groups={module.groups} and a forward of its own, which LoRA cannot imitate"
    return _refuse(path, module, why, LEAVE_OUT)


def wrong_kind(path: str, module: nn.Module, kind: Kind) -> InvalidConfig:
    """Refuse a module without a weight that LoRA knows how to update."""
    why = {
        "multihead_attention": "is an attention, of which only LoRA can adapt the fused projections",
        "expert_parameter": "keeps its experts in bare parameters, which target_parameters names",
        "norm": "is a normalisation, which there is no update for",
        "embedding": "is an embedding, which IA3 does not rescale",
    }.get(kind, "is no linear, convolution or embedding")
    inside = [name for name, _ in module.named_children()]
    way_out = f"Name the layers inside of it ({quoted(inside[:4])})." if inside and kind == "other" else LEAVE_OUT
    return _refuse(path, module, why, way_out)


def inside_multihead_attention(path: str, site: Site) -> InvalidConfig:
    """Refuse a layer whose weight its parent reads directly: an adapter there would train nothing."""
    why = f"belongs to a {type(site.parent).__name__}, which never calls it: an adapter there would be dead"
    return _refuse(path, site.module, why, LEAVE_OUT)


def quantised(path: str, module: nn.Module) -> InvalidConfig:
    """Refuse a weight that is not in floating point."""
    return _refuse(path, module, f"has quantised weights ({module.weight.dtype})", LEAVE_OUT)


def lazy(path: str, module: nn.Module) -> InvalidConfig:
    """Refuse a lazy layer that has not seen its first input."""
    return _refuse(path, module, "does not know its shape yet", "Run the model once before adapting it.")


def own_forward(path: str, module: nn.Module) -> InvalidConfig:
    """Refuse an embedding that computes its ids itself."""
    why = "computes its ids in a forward of its own, which the adapter would not see"
    return _refuse(path, module, why, LEAVE_OUT)


def rank_not_divisible(path: str, module: nn.Module, r: int) -> InvalidConfig:
    """Refuse a rank that a grouped convolution cannot split."""
    way_out = f"Give it a rank that {module.groups} divides (rank_pattern), or name it in exclude_modules."
    return _refuse(path, module, f"has groups={module.groups}, which do not divide the rank r={r}", way_out)


def shared_block(path: str, blocks: int, depth: int) -> InvalidConfig:
    """Refuse to tell layers apart that are one block, run several times."""
    message = (
        f"layers_to_transform cannot tell layers apart: the block {path!r} is shared, {depth} layers run on {blocks}"
    )
    way_out = "Leave it out, which adapts all of them; or correct num_hidden_layers, if blocks were cut off."
    return InvalidConfig(f"{message}. {way_out}", path=path, blocks=blocks, depth=depth)


def container_saved(path: str, module: nn.Module) -> InvalidConfig:
    """Refuse a list of modules in ``modules_to_save``: it has no forward to stand in for."""
    return _refuse(path, module, "cannot be saved as a whole", "Name the modules inside of it in modules_to_save.")


def nothing_to_train(path: str, module: nn.Module) -> InvalidConfig:
    """Refuse a module without parameters in ``modules_to_save``."""
    return _refuse(path, module, "has no parameters to train", "Take it out of modules_to_save.")


def adapted_already(path: str, model: nn.Module) -> InvalidConfig:
    """Refuse a model that carries adapters."""
    message = f"{type(model).__name__} carries adapters already (at {path!r})."
    return InvalidConfig(f"{message} Call unload() or merge_and_unload() on it first.", path=path)


def _refuse(path: str, module: nn.Module, why: str, way_out: str) -> InvalidConfig:
    name = type(module).__name__
    return InvalidConfig(f"{path!r} ({name}) {why}. {way_out}", path=path, class_name=name)
