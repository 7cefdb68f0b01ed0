"""The choice of the layers to adapt: by the configuration, or else by the registry or a scan."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, TypedDict

from torch import nn

from ..discovery import open_wrappers
from ..domain.methods import choose_preset
from ..domain.targets import find_hits
from ..domain.vocabulary import count_layers, list_some
from ..errors import InvalidConfig
from ..warn import warn
from .config import AdapterConfig, LoraConfig
from .injection.host_model import unwrapped
from .injection.plan import Expand
from .peft_forms import as_config
from .targets import Decision, decide, expand_shorthand, with_ranks


class Selection(TypedDict, total=False):
    """The arguments that choose layers and ranks, of ``get_peft_model`` and ``auto_config``; all may be left out.

    With any but ``preset`` and ``example_inputs`` the scan decides, not the registry.

    Attributes:
        preset: ``default``, ``recommended``, ``attention``, ``mlp``, ``all-linear``, ``experts`` or ``everything``, of
            which IA3 has the first alone; by default that of ``LORADAR_PRESET``, else the first. Not used if the
            configuration has targets.
        example_inputs: Inputs of the model's forward, as in ``scan``: a scan with them decides. Without, a scan makes
            its own.
        towers: Towers to adapt instead of those of the preset: ``language``, ``vision``, ``audio``, ``projector``,
            ``main``, several of them, or ``all``.
        roles: Roles to adapt, or patterns: ``attention.*``, ``mlp.down``. They narrow a preset; with preset ``default``
            they stand alone.
        blocks: Blocks to adapt: ``last 8``, ``first 4``, ``every 2``, ``10-20``, or a list of numbers from 0.
        expert_rank: Rank of routed experts: ``auto`` (``r`` over the experts that run for a token), ``shared`` (``r``)
            or a number.
        budget: Parameters to train at most, as a number or a share such as ``0.5%``: decides ``r``, and the preset if
            that is ``default``.
        servable: An engine, ``vllm``, ``sglang`` or ``llama_cpp``: the layers whose adapters it applies alone.
    """

    preset: str | None
    example_inputs: Any
    towers: Any
    roles: Any
    blocks: Any
    expert_rank: Any
    budget: Any
    servable: str | None


class Choice(NamedTuple):
    """An adapter whose layers are chosen.

    Attributes:
        config: Its configuration, with targets.
        given: The configuration as given.
        decision: The decision on its targets.
        expand: The function that resolves shorthands in its targets.
    """

    config: AdapterConfig
    given: AdapterConfig
    decision: Decision
    expand: Expand


def choose(
    model: nn.Module,
    given: AdapterConfig,
    preset: str | None = None,
    example_inputs: Any = None,
    selection: Mapping[str, Any] | None = None,
) -> Choice:
    """Choose the layers of a model for a configuration; see ``Selection``, and ``get_peft_model`` for the errors.

    The model may have adapters of loradar's; ``check_host`` rejects others, which would look like a misfit of the
    registry.
    """
    config, selection = (given := as_config(given)), selection or {}
    if config.spec.target_modules is not None or config.spec.target_parameters:
        if selection:
            names = ", ".join(selection)
            raise InvalidConfig(f"{names} selects layers, and the configuration names them too: leave one of both out.")
        decision = Decision("config", config.spec, "targets given in the configuration")
    else:
        is_free = selection.get("budget") is None
        rank = {"rank": config.r} if isinstance(config, LoraConfig) and is_free else {}
        preset = choose_preset(preset, config.method)
        with unwrapped(model) as inner:
            decision = decide(inner, preset, config.method, example_inputs, **rank, **selection)
        for left_out in () if config.modules_to_save else decision.frozen:
            warn(left_out)
        if decision.spec.saves_alone:
            warn(decision.spec.describe_saved())
        _warn_of_uncalled(decision)
        config = with_ranks(config.with_spec(decision.spec), decision)
    config = config.for_base(open_wrappers(model)[-1].__dict__.get("name_or_path"))
    return Choice(config, given, decision, partial(expand_shorthand, example_inputs=example_inputs))


def _warn_of_uncalled(decision: Decision) -> None:
    """Name the targets that no forward of the whole model calls, such as a discriminator beside a generator."""
    if idle := [layer.path for layer in find_hits(decision.spec, decision.layers) if layer.is_uncalled]:
        message = f"The model's forward never calls {count_layers(len(idle))} of the targets ({list_some(idle)})"
        warn(f"{message}: adapters there learn only if training calls them. If not, name targets without them.")
