"""``enable_peft_defaults``: plain ``peft.get_peft_model(model, peft.LoraConfig())`` for every architecture."""

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import wraps
from threading import RLock
from types import TracebackType
from typing import Any, Self

from torch import nn

from ...domain.choosing.query import Selection
from ...domain.methods import TARGETED, choose_preset, get_family
from ...domain.scans import check_preset
from ...domain.targets import TargetSpec
from ...domain.vocabulary import PRESETS
from ...errors import InvalidConfig, InvalidRequest, LoradarError
from ...extras import require
from ...registry import verify
from ...warn import warn
from ..targets import Decision, decide, decide_for, decide_unscanned, scan_known
from .configuration import fill, lacks_targets, method_of, peft_targets, without_adapters

WRITTEN_FOR = "0.21.2"
"""The version of peft whose tuners are hooked here."""

_HOOKED = {"__init__": ("model", "peft_config", "adapter_name"), "inject_adapter": ("model", "adapter_name")}
"""The hooked methods of peft's tuners, for the first adapter and any further one, and the parameters read of them."""

_lock = RLock()
_enabled: list["PeftDefaults"] = []
_replaced: dict[str, tuple[Any, Any]] = {}
_current: ContextVar[Any] = ContextVar("_current", default=None)


@dataclass(frozen=True, eq=False)
class PeftDefaults:
    """The handle of ``enable_peft_defaults``, which undoes it, by ``undo()`` or as a context manager.

    Attributes:
        preset: The preset whose targets are filled in.
        selection: The selection of layers, with the preset.
    """

    preset: str
    selection: Selection = field(default_factory=Selection)

    def undo(self) -> None:
        """Restore peft once no other handle is left; a second call does nothing."""
        from peft.tuners.tuners_utils import BaseTuner

        with _lock:
            if self in _enabled:
                _enabled.remove(self)
            if not _enabled:
                for name, (original, ours) in _replaced.items():
                    if BaseTuner.__dict__[name] is ours:  # else other code wraps ours, which calls the original now
                        setattr(BaseTuner, name, original)
                _replaced.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.undo()


def enable_peft_defaults(preset: str | None = None, **choice: Any) -> PeftDefaults:
    """Let the installed peft adapt models without targets: ``peft.get_peft_model(model, peft.LoraConfig())``.

    Works for every method whose configuration takes ``target_modules``, through every way into peft (a trainer, a
    further adapter, ``model.add_adapter``). The targets come from the first of these that has any:

    1. The user: a configuration with ``target_modules`` or ``target_parameters`` is never changed. Its other fields,
       such as ``exclude_modules`` or ``layers_to_transform``, apply to targets that are filled in.
    2. peft's own table, where its entry fits this model, for preset ``default`` without a choice only.
    3. loradar, as in ``loradar.get_peft_model``: the registry by name, by fingerprint, by structure, or a live scan.
       If that finds none, a warning gives the reason, and peft continues as without this function.

    Only targets are filled in, and the ranks of experts where they have their own: ``task_type`` and
    ``modules_to_save`` select the heads to train, as before. Calls nest, and the last one applies; peft is restored
    when the last handle is undone, in any order. Nothing of peft is changed on disk.

    Args:
        preset: ``default``, ``recommended``, ``attention``, ``mlp``, ``all-linear``, ``experts`` or ``everything``, by
            default that of ``LORADAR_PRESET``, else the first; a method that has no such preset (IA3) gets its default.
        choice: ``towers``, ``roles``, ``blocks`` and ``expert_rank``, as in ``loradar.get_peft_model``. A model without
            such layers is left to peft, with a warning that lists what it has.

    Returns:
        A handle: ``undo()`` it, or use it in a ``with`` statement.

    Raises:
        MissingExtra: If peft is not installed.
        UnknownPreset: If there is no such preset.
        UnknownName: If a tower or a role is none of the vocabulary.
        InvalidRequest: If a choice cannot be read, or is one of ``budget`` and ``rank``, which the configuration has.
        InvalidConfig: If the installed peft lacks the functions to hook. Of any version but 0.21.2 there is a warning.
    """
    require("peft", "peft")
    preset = choose_preset(preset, "LORA")
    check_preset("enable_peft_defaults", preset, PRESETS)
    for name in choice.keys() & {"budget", "rank"}:
        message = f"{name}={choice[name]!r} decides the rank, which each configuration has (r). For a single model: "
        raise InvalidRequest(f"{message}loradar.auto_config(model, budget=...).", field=name, value=str(choice[name]))
    handle = PeftDefaults(preset, Selection.parse(preset, **choice))
    with _lock:
        if not _enabled:
            _hook()
        _enabled.append(handle)
    return handle


def _hook() -> None:
    """Replace peft's functions by ours, which call them, after checking their parameters."""
    import peft
    from peft.tuners.tuners_utils import BaseTuner

    if peft.__version__ != WRITTEN_FOR:
        message = f"enable_peft_defaults was written for peft {WRITTEN_FOR}, and {peft.__version__} is installed"
        warn(f"{message}: check what print_trainable_parameters() says.")
    for name, needed in _HOOKED.items():
        function = BaseTuner.__dict__.get(name)
        if not callable(function) or not {*needed} <= {*inspect.signature(function).parameters}:
            message = f"peft {peft.__version__} has no BaseTuner.{name}({', '.join(needed)})"
            raise InvalidConfig(f"{message}: install peft {WRITTEN_FOR}, or name the targets with loradar.auto_config.")
    for name in _HOOKED:
        original = BaseTuner.__dict__[name]
        ours = _hooked(original)
        _replaced[name] = (original, ours)
        setattr(BaseTuner, name, ours)


def _hooked(original: Callable[..., None]) -> Callable[..., None]:
    """Return a tuner's function that fills in the targets of its configuration first."""
    signature = inspect.signature(original)

    @wraps(original)
    def hooked(tuner: Any, *args: Any, **named: Any) -> None:
        given = signature.bind(tuner, *args, **named).arguments
        config = given.get("peft_config") or tuner.peft_config
        config = config.get(given["adapter_name"]) if isinstance(config, dict) else config
        enabled = _enabled[-1:]
        is_first = config is not None and config is not _current.get()  # a tuner's __init__ calls inject_adapter
        # The keys of a state_dict select the layers, whatever the configuration.
        if enabled and is_first and given.get("state_dict") is None and lacks_targets(config):
            _fill(tuner, config, given["model"], enabled[0].selection)
        token = _current.set(config)
        try:
            original(tuner, *args, **named)
        finally:
            _current.reset(token)

    return hooked


def _fill(tuner: Any, config: Any, model: nn.Module, selection: Selection) -> None:
    """Fill in the targets of a configuration, or warn of the reason why not."""
    try:
        with without_adapters(model):
            decision = _decide(tuner, config, model, selection)
    except LoradarError as error:
        warn(f"peft is left to itself, loradar has no targets: {error.message}")
        return
    saved = decision.spec.modules_to_save if decision.spec.saves_alone else None  # the user selects the other heads
    fill(config, replace(decision, spec=replace(decision.spec, modules_to_save=saved)), model)


def _decide(tuner: Any, config: Any, model: nn.Module, selection: Selection) -> Decision:
    """Return peft's own targets where they fit the model, else loradar's."""
    method, preset = method_of(config), selection.preset
    theirs = peft_targets(tuner, config, model) if preset == "default" and selection.is_plain else None
    preset = preset if preset in get_family(method.family).presets else "default"
    if theirs is None:
        ranks = ("rank", "expert_rank") if method.name != TARGETED else ()  # which LoRA alone has
        choice = {name: value for name, value in selection.to_query().items() if name not in ranks}
        choice |= {"rank": config.r} if method.name == TARGETED else {}
        return decide(model, preset, method.name, **choice)
    ours = decide_unscanned(model, preset, method.name)
    if ours and _unordered(ours.spec) == _unordered(theirs):
        return ours
    found = scan_known(model)
    if verify(found, theirs, method.name).status in ("live", "unproven"):
        return Decision("config", theirs, "PEFT's own table", layers=found.layers)
    return decide_for(found, method.name, preset)


def _unordered(spec: TargetSpec) -> list[str | frozenset[str]]:
    """Return the targets of a spec for a comparison in any order, without saved modules."""
    values = (value for name, value in spec.values.items() if name != "modules_to_save")
    return [value if isinstance(value, str) else frozenset(value or ()) for value in values]
