"""The plan of rows that train in embeddings (``trainable_token_indices``), by PEFT's rules (0.21.2)."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from ...discovery import read_attribute
from ...errors import InvalidConfig, TargetsNotFound, quoted
from ...warn import warn
from ..config import AdapterConfig
from ..layers.base_layer import offload_device
from ..layers.planned import PlannedAdapter
from ..layers.tokens import TokenLayer
from .host_model import Site, Survey
from .match import closest, matched

MATRIX = 2
"""The number of dimensions of a matrix."""


def plan_tokens(
    survey: Survey, config: AdapterConfig, adapted: Collection[str], saved: Collection[str]
) -> tuple[PlannedAdapter, ...]:
    """Plan the rows that a configuration trains, and the same rows of the layers tied to the input embedding.

    Args:
        survey: The walk over the model.
        config: The configuration.
        adapted: Paths of the layers that it adapts.
        saved: Paths of the modules that it trains in full.

    Raises:
        TargetsNotFound: If a name matches no module.
        InvalidConfig: Naming the module, for one without rows, a row it does not have, or one that is adapted or
            saved too.
    """
    taken = {**dict.fromkeys(adapted, "target_modules"), **dict.fromkeys(saved, "modules_to_save")}
    _check_untouched(survey, taken)
    given = getattr(config, "trainable_token_indices", None)
    if given is None:
        return ()
    read = _input_embedding(survey) or "embed_tokens"
    wanted = _resolve(survey, given if isinstance(given, Mapping) else {read: given})
    tied = _list_tied(survey, read) if read in wanted else []
    if any(wanted.get(path, wanted[read]) != wanted[read] for path in tied):
        if getattr(config, "ensure_weight_tying", False):
            message = "Cannot ensure weight tying when different token indices are specified for tied layers"
            raise InvalidConfig(f"{message}: give {read!r} alone, or leave ensure_weight_tying out.", path=read)
        tied = []  # rows of their own, as in PEFT
    planned = [_plan(path, wanted[read], survey.sites[path], tied_to=read) for path in tied]
    for path, tokens in wanted.items():
        if path in tied:
            continue
        others = survey.sharing(path)
        if is_shared := bool({*others} - ({*tied} if path == read else set())):
            message = f"{path!r} shares its weight with {', '.join(map(repr, others))}, which keeps its rows"
            warn(f"{message}: merging will untie them.")
        planned.insert(0, _plan(path, tokens, survey.sites[path], is_shared=is_shared))  # before those tied to it
    for each in planned:
        _check(each, survey.sites[each.path], taken)
    return tuple(planned)


def _plan(
    path: str, tokens: Sequence[int], site: Site, *, tied_to: str = "", is_shared: bool = False
) -> PlannedAdapter:
    if offload_device(site.module) is not None:
        message = f"{path!r} has weights that accelerate offloads, and no rows of them can train"
        raise InvalidConfig(f"{message}: adapt the model before it is dispatched.", path=path)
    return PlannedAdapter(
        path=path,
        named=path,
        location=path,
        kind="embedding" if isinstance(site.module, nn.Embedding) else "linear",
        shares_weight=is_shared,
        tokens=tuple(tokens),
        tied_to=tied_to,
    )


def _resolve(survey: Survey, given: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    """Return the tokens by the path of their module."""
    wanted: dict[str, Sequence[int]] = {}
    for name, tokens in given.items():
        paths = matched(survey.paths, (name,))
        if not paths:
            message = f"Target modules { ({name})!r} not found in the base model."
            why = f"{message} trainable_token_indices has rows for it. {closest(name, survey.paths)}"
            raise TargetsNotFound(why, trainable_token_indices=name)
        for path in paths:
            if wanted.setdefault(path, tokens) != tokens:
                message = f"trainable_token_indices: several names match {path!r}, with other tokens: name it once."
                raise InvalidConfig(message, path=path)
    return wanted


def _input_embedding(survey: Survey) -> str | None:
    """Return the path of the input embedding of a model that tells it."""
    method = read_attribute(survey.model, "get_input_embeddings")
    try:
        layer = method() if callable(method) else None
    except (NotImplementedError, AttributeError):  # a model without a vocabulary
        layer = None
    found = (
        path for path, site in survey.sites.items() if layer is not None and layer in (site.module, site.current())
    )
    return next(found, None)


def _list_tied(survey: Survey, read: str) -> list[str]:
    """Return the paths of the layers with the weight of the input embedding, if its model states that they are tied."""
    config = read_attribute(survey.model, "config")
    get = config.get if isinstance(config, Mapping) else partial(read_attribute, config)
    return survey.sharing(read) if config is not None and get("tie_word_embeddings") else []


def plan_tying(
    survey: Survey, config: AdapterConfig, adapted: Collection[str], saved: Collection[str]
) -> tuple[str, ...]:
    """Return the tied layers to train in full as one weight (``ensure_weight_tying``), if one of them is saved.

    Args:
        survey: The walk over the model.
        config: The configuration.
        adapted: Paths of the layers that it adapts.
        saved: Paths of the modules that it trains in full.

    Raises:
        InvalidConfig: If a tied layer is adapted, in a larger module that is saved, or on the meta device.
    """
    if not getattr(config, "ensure_weight_tying", False):
        return ()
    read = _input_embedding(survey)
    tied = (read, *_list_tied(survey, read)) if read else ()
    if len(tied) <= 1:
        message = "ensure_weight_tying=True but the model does not have tied weights (tie_word_embeddings=False)"
        warn(f"{message}: it changes nothing.")
        return ()
    for path in (*adapted, *saved):
        is_alone = path in saved and path in tied
        if not is_alone and any(f"{each}.".startswith(f"{path}.") for each in tied):
            message = "ensure_weight_tying=True is for trainable_token_indices and embeddings in modules_to_save, and"
            raise InvalidConfig(f"{message} {path!r} is another target: leave out one of both.", path=path)
    if not {*tied} & {*saved}:
        if getattr(config, "trainable_token_indices", None) is None:
            names = quoted(tied)
            warn(f"ensure_weight_tying=True but no tied modules are added: {names} are no target. It changes nothing.")
        return ()
    weight: Any = survey.sites[tied[0]].module.weight
    if weight.is_meta:
        message = f"ensure_weight_tying=True: {tied[0]!r} is on the meta device, and storage would untie its copies"
        raise InvalidConfig(f"{message}: give the model storage first.", path=tied[0])
    return tied


def _check_untouched(survey: Survey, taken: Mapping[str, str]) -> None:
    """Reject modules to adapt or save in which another adapter trains rows."""
    for path, field in taken.items():
        if any(isinstance(wrapper, TokenLayer) for wrapper in survey.sites[path].wrappers):
            message = f"{path!r} has rows that another adapter trains (trainable_token_indices), so it cannot be in"
            raise InvalidConfig(f"{message} {field}: leave it out, or use a second copy.", path=path)


def _check(planned: PlannedAdapter, site: Site, taken: Mapping[str, str]) -> None:
    """Reject a module that has no such rows, or in which something else trains."""
    path, name = planned.path, type(site.module).__name__
    weight = site.module._parameters.get("weight")  # noqa: SLF001 - a packed or computed weight has other names
    is_plain = weight is not None and weight.ndim == MATRIX and weight.is_floating_point()
    if weight is None or not is_plain or not isinstance(site.module, nn.Embedding | nn.Linear):
        message = (
            f"{path!r} ({name}) is no embedding or linear layer with a plain weight, so none of its rows can train"
        )
        raise InvalidConfig(f"{message}: take it out of trainable_token_indices.", path=path, class_name=name)
    if largest := max(0, *(token for token in planned.tokens if token >= len(weight)), 0):
        message = f"trainable_token_indices names row {largest}, and {path!r} has {len(weight)}, from 0"
        raise InvalidConfig(f"{message}: give smaller ones, or resize the vocabulary first.", path=path, row=largest)
    for other, field in taken.items():
        if f"{path}.".startswith(f"{other}."):
            already = "is already marked to be trained fully" if field == "modules_to_save" else "is adapted too"
            message = f"The embedding layer {already}: {path!r} is in {field}, and its rows in trainable_token_indices"
            raise InvalidConfig(f"{message}. Leave it out of one of both.", path=path)
    if any(not isinstance(wrapper, TokenLayer) for wrapper in site.wrappers):
        message = f"{path!r} is adapted or saved by another adapter, so that no rows of it can train"
        raise InvalidConfig(f"{message} (trainable_token_indices): use a second copy of the model.", path=path)
