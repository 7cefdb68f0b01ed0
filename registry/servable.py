"""The verdicts of serving engines on the adapter of a mapping, by the slots of its architecture."""

from collections.abc import Iterable

from ..domain.mappings import Mapping
from ..domain.methods import TARGETED
from ..domain.serving import Features, Served, assess, list_engines
from ..domain.serving.verdicts import Placed


def list_served(mapping: Mapping, class_name: str | None, layers: Iterable[tuple[str, Placed]]) -> tuple[Served, ...]:
    """Return the verdict of each engine; none for methods other than LoRA, and models of other libraries.

    Args:
        mapping: The mapping.
        class_name: The class that was scanned.
        layers: The layers that it matches: path or path pattern, and kind, role and tower.
    """
    if mapping.peft_type != TARGETED or mapping.library != "transformers" or class_name is None:
        return ()
    found = [*layers]
    has = {
        "regex": isinstance(mapping.target_modules, str),
        "rank_pattern": bool(mapping.rank_pattern),
        "alpha_pattern": bool(mapping.alpha_pattern),
    }
    ranks = (mapping.rank, *(mapping.rank_pattern or {}).values())
    names = tuple(name for name, is_there in has.items() if is_there)
    features = Features(max(ranks), names, mapping.modules_to_save or ())
    return tuple(assess(engine, class_name, found, features) for engine in list_engines())
