"""Names of the modules trained in full, as PEFT must read them: it matches plain endings, not whole names (0.21.2)."""

from collections.abc import Iterable, Iterator

from ...warn import warn
from ..injection.apply import layers_in
from ..injection.host_model import Survey
from ..injection.match import matched
from ..layers.tokens import KEY, TokenLayer

TOKEN_PARTS = ("token_adapter", "token_adapter.base_layer", KEY, "token_adapter.trainable_tokens_original")
"""The modules in PEFT's layer of trainable rows."""


def names_for_peft(survey: Survey, adapter: str, names: Iterable[str]) -> list[str]:
    """Return names that PEFT takes for the same modules, as far as there are any.

    ``out`` ends ``proj.lora_dropout`` too, and ``fc`` ends ``block.xfc``, which PEFT would wrap or reject. Paths take
    the place of such a name, where they end nothing else; a module of the model itself has none that PEFT would find.

    Args:
        survey: The walk over the model.
        adapter: Name of the adapter to save.
        names: Its ``modules_to_save``.
    """
    names = [*names]
    saved = {*matched(survey.paths, tuple(names))}  # what PEFT takes besides is no mistake if it is saved anyway
    keys = [key for key in _list_keys(survey, adapter) if key not in saved]
    written: list[str] = []
    for name in names:
        paths = [*matched(survey.paths, (name,))]
        if _also_ended(name, keys, paths) is None:
            written.append(name)
            continue
        also = next(filter(None, (_also_ended(path, keys, paths) for path in paths)), None)
        if also is None:
            written += paths
            continue
        written.append(name)
        why = f"PEFT matches endings and takes {also!r} for it too"
        warn(f"modules_to_save: {name!r} loads in loradar, not in PEFT: {why}. Rename the module for PEFT.")
    return list(dict.fromkeys(written))


def _also_ended(name: str, keys: Iterable[str], paths: Iterable[str]) -> str | None:
    """Return the first key that ends with a name and is none of its paths."""
    own = {*paths}
    return next((key for key in keys if key.endswith(name) and key not in own), None)


def _list_keys(survey: Survey, adapter: str) -> Iterator[str]:
    """Yield the paths of the modules in PEFT's model with this adapter, loaded under its usual name."""
    # One without parameters may be wrapped as well: nothing is missing in the file then.
    yield from (path for path, site in survey.sites.items() if next(site.module.parameters(), None) is not None)
    for path, layer in layers_in(survey):
        if adapter in layer.adapters():
            held = (*layer.containers, *(f"{each}.default" for each in layer.containers))
            parts = TOKEN_PARTS if isinstance(layer, TokenLayer) else ("base_layer", *held)
            yield from (f"{path}.{part}" for part in parts)
