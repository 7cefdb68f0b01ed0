"""What the engines that serve models would do with a saved adapter, by its configuration and the layers it lands on."""

from ...domain.serving import Features, Served, assess, list_engines
from ..checks import CHANGING_THE_BASE
from .findings import Case

CHANGED_IN_A_FILE = tuple(name for name in CHANGING_THE_BASE if name != "lora_ga")
"""Initialisations whose files are for changed base weights; LoRA-GA changes them in training alone."""


def list_served(case: Case) -> tuple[Served, ...]:
    """Return the verdict of each engine on an adapter; none if the class of its model is not known."""
    scan = case.base.scan if case.base else None
    if scan is None or scan.architecture.library != "transformers":
        return ()
    config = case.adapter.config
    has = {
        "dora": config.get("use_dora"),
        "rslora": config.get("use_rslora"),
        "bias": config.get("lora_bias") or config.get("bias", "none") != "none",
        "regex": isinstance(config.get("target_modules"), str),
        "rank_pattern": config.get("rank_pattern"),
        "alpha_pattern": config.get("alpha_pattern"),
        "init": str(config.get("init_lora_weights")).startswith(CHANGED_IN_A_FILE),
        "alora": config.get("alora_invocation_tokens"),
        "layer_replication": config.get("layer_replication"),
        "bdlora": config.get("use_bdlora"),
        "qalora": config.get("use_qalora"),
    }
    saved = config.get("modules_to_save")
    features = Features(
        max((rank for factors in case.adapter.factors.values() for rank in factors.ranks), default=None),
        tuple(name for name, is_there in has.items() if is_there),
        tuple(map(str, saved)) if isinstance(saved, list) else (),
    )
    layers = [(case.path_of(factors), place) for factors, places in case.list_landed() for place in places]
    return tuple(assess(engine, scan.architecture.class_name, layers, features) for engine in list_engines())
