"""Which adapters of a model are active, on and trainable, and the level of PEFT's tuner, ``base_model``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from ..errors import InvalidConfig
from ..warn import warn
from .adapted import Adapted, as_names
from .base_weights import fill_copy
from .injection.apply import Prepared, adapters_in, attach, detach
from .injection.beginnings import Beginnings
from .injection.combinations import Combination
from .injection.host_model import HostState, Survey, set_trainable
from .injection.statistics import NormStatistics, put
from .injection.weighted import combine
from .layers.dora import fill_magnitude
from .layers.saved import SavedModule
from .layers.wrappers import AdapterLayer, Steering


class Switching(Adapted):
    """The adapters of a model, with their switches too."""

    def set_adapter(self, adapter_name: str | Sequence[str], inference_mode: bool = False) -> None:
        """Activate one adapter, or several at once; these train, the others are frozen.

        Args:
            adapter_name: The name, or the names.
            inference_mode: Whether the active ones are frozen too.

        Raises:
            InvalidConfig: If there is no such adapter, none is named, or two of them save the same module in full.
        """
        names = as_names(adapter_name)
        if not names:
            raise InvalidConfig("set_adapter([]) names no adapter: for the base model alone, use disable_adapter().")
        self._check_known(names)
        self._check_compatible(names)
        if any(layer.merged for layer in self._layers()):
            warn("The adapters were merged, and are unmerged to switch between them.")
            self.unmerge_adapter()
        self._activate(names, trainable=not inference_mode)

    def _activate(self, names: Sequence[str], *, trainable: bool = True) -> None:
        self._steering.active = tuple(names)
        self._set_trainable([name for name in self.peft_config if name not in names], trainable=False)
        self._set_trainable(names, trainable=trainable)

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        """Let adapters train, or freeze them, whether or not they are active.

        Raises:
            InvalidConfig: If there is no such adapter.
        """
        names = as_names(adapter_names)
        self._check_known(names)
        self._set_trainable(names, trainable=requires_grad)

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove an adapter; if it was the active one, the first of the others becomes active, if there is one.

        Raises:
            InvalidConfig: If there is no such adapter, or it is merged.
        """
        self._check_known((adapter_name,))
        if any(adapter_name in layer.merged_adapters for layer in self._layers()):
            message = f"Cannot delete adapter(s) [{adapter_name!r}] while they are merged. Please unmerge them first."
            raise InvalidConfig(message, adapter_name=adapter_name)
        self._set_trainable([adapter_name], trainable=False)
        with self._unmerged():
            detach(self.get_base_model(), adapter_name)
        del self.peft_config[adapter_name]
        if adapter_name not in self._steering.active:
            return
        left = [name for name in self._steering.active if name != adapter_name]
        if not left and self.peft_config:
            left = [next(iter(self.peft_config))]
            warn(f"{adapter_name!r} was active and is deleted: {left[0]!r} is active now.")
        self._activate(left)

    def _add(self, prepared: Prepared, *, trainable: bool = False) -> None:
        self.unmerge_adapter()
        attach(self._survey(), prepared, self._steering)
        self.peft_config[prepared.name] = prepared.config
        self._list_targets(prepared)
        self._put_statistics(prepared.statistics, prepared.name)
        self._begin(prepared)
        self._set_trainable([prepared.name], trainable=trainable)

    def _list_targets(self, prepared: Prepared) -> None:
        """Add the layers and the bare parameters of an adapter to those of the others."""
        planned = [part.planned for part in prepared.parts if not part.planned.tokens]
        modules = dict.fromkeys(each.named for each in planned if each.kind != "expert_parameter")
        parameters = (f"{each.path}.{each.parameter}" for each in planned if each.kind == "expert_parameter")
        for known, found in ((self.targeted_module_names, modules), (self.targeted_parameter_names, parameters)):
            before = {*known}
            known.extend(name for name in found if name not in before)

    def _begin(self, prepared: Prepared) -> None:
        """Initialise an attached adapter by PEFT's functions, if its configuration states one of them."""
        if not prepared.config.begins_with_peft:
            return
        parts = [(part.planned, part.children) for part in prepared.parts]
        self._beginnings.begin(self._survey(), prepared.name, prepared.config, parts, fill=prepared.is_fresh)

    def add_weighted_adapter(
        self,
        adapters: Sequence[str],
        weights: Sequence[float],
        adapter_name: str,
        combination_type: str = "svd",
        svd_rank: int | None = None,
        svd_clamp: float | None = None,
        svd_full_matrices: bool = True,
        svd_driver: str | None = None,
        density: float | None = None,
        majority_sign_method: str = "total",
    ) -> None:
        """Add the weighted sum of other LoRA adapters as a new one.

        Args:
            adapters: Names of the others. A module that one of them trains in full is copied.
            weights: One weight each; negative ones subtract.
            adapter_name: Name of the new one, which is inactive until it is activated.
            combination_type: ``svd``, the default as in PEFT, truncates the sum to ``svd_rank``: the closest of that
                rank. ``cat`` concatenates the factors: exact, with the sum of the ranks. ``linear`` adds the factors of
                equal ranks, a rough approximation. ``magnitude_prune``, ``ties``, ``dare_linear`` and ``dare_ties`` do
                so with a part of the values; with ``_svd``, of the updates. Of one adapter all but svd are linear.
            svd_rank: Rank of the sum for ``svd``; the largest rank of the adapters on each layer if ``None``.
            svd_clamp: Quantile at which the values of the factors are clamped, for ``svd``.
            svd_full_matrices: Whether to decompose in full, which takes memory and changes nothing.
            svd_driver: cuSOLVER's method, for ``svd`` on CUDA.
            density: Share of the values to keep, for the pruning ones.
            majority_sign_method: The sign that wins, for ``ties``: of the sum (``total``) or of most (``frequency``).

        Raises:
            InvalidConfig: If an adapter is unknown or no LoRA, ranks or saved modules clash, or the name is taken.
        """
        if not adapters:
            raise InvalidConfig("add_weighted_adapter: adapters=[] names no adapter to sum: give one at least.")
        self._check_known(adapters)
        self._check_new(adapter_name, self.peft_config[adapters[0]])
        if len(weights) != len(adapters):
            message = f"{len(weights)} weights for {len(adapters)} adapters: give one for each."
            raise InvalidConfig(message, weights=len(weights), adapters=len(adapters))
        how = Combination(
            combination_type, svd_rank, svd_clamp, svd_full_matrices, svd_driver, density, majority_sign_method
        )
        configs, shares = [self.peft_config[name] for name in adapters], [*zip(adapters, weights, strict=True)]
        self._add(combine(adapters_in(self._survey()), configs, shares, adapter_name, how))

    # Off and on

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Switch all adapters off, unmerged and frozen, within a ``with`` block."""
        self._warn_of_traces()
        states = [each.adapter_state(name) for _, each in adapters_in(self._survey()) for name in each.adapters()]
        trained = [tensor for state in states for tensor in state.values() if tensor.requires_grad]
        with self._unmerged():
            before, self._steering.disabled = self._steering.disabled, True
            set_trainable(trained, trainable=False)
            try:
                yield
            finally:
                self._steering.disabled = before
                set_trainable(trained, trainable=True)

    def disable_adapter_layers(self) -> None:
        """Switch all adapters off, unmerged and frozen, until ``enable_adapter_layers``."""
        self._warn_of_traces()
        self.unmerge_adapter()
        self._set_trainable([*self.peft_config], trainable=False)
        self._steering.disabled = True

    def enable_adapter_layers(self) -> None:
        """Switch the adapters on again; the active ones train."""
        self._steering.disabled = False
        self._activate(self._steering.active)

    def _warn_of_traces(self) -> None:
        """Warn of what the adapters changed in the base model itself."""
        for which in (self.peft_config[name].trained_biases for name in self._steering.active):
            if which != "none":
                warn(f"Biases trained with bias={which!r} stay in place while the adapter is disabled.")
        if self.norm_statistics():
            warn("Running statistics of norms changed by training stay in place while the adapter is disabled.")
        if changes := self._beginnings.describe():
            warn(f"Base weights changed by {changes} stay in place while the adapter is disabled.")
        if [each for _, each in adapters_in(self._survey()) if each.follow_model()]:
            message = "The model contains some adapter layers that are enabled and others that are disabled, or others"
            warn(f"{message} active: from here on, all follow the model again.")

    def _give_storage(self, adapter_name: str) -> None:
        """Create the tensors of an adapter that is on meta on the devices of its layers, without values."""
        for layer in self._layers():
            layer.give_storage(adapter_name)

    def reset_adapter(self, adapter_name: str | None = None) -> None:
        """Initialise an adapter again, for example in a model that was built on meta and then given storage.

        Copies of saved modules get the values of their originals.

        Raises:
            InvalidConfig: If there is no such adapter.
        """
        name = adapter_name or self._first_active()
        self._check_known((name,))
        self._give_storage(name)
        with self._unmerged():
            wrappers = [wrapper for _, wrapper in adapters_in(self._survey()) if name in wrapper.adapters()]
            for saved in (wrapper for wrapper in wrappers if isinstance(wrapper, SavedModule)):
                fill_copy(saved, name)
            layers = [wrapper for wrapper in wrappers if isinstance(wrapper, AdapterLayer)]
            for layer in layers:
                layer.reset(name, how=self.peft_config[name].initialisation)
                fill_magnitude(layer.parts(name), layer.base(), layer.planned[name])
            parts = [(layer.planned[name], layer.parts(name)) for layer in layers]
            self._beginnings.begin_again(self._survey(), name, self.peft_config[name], parts)


class AdaptedModel(Switching):
    """The level between ``PeftModel`` and the user's model: PEFT's tuner, whose methods it has.

    Attributes:
        model: The user's model.
        prefix: Prefix of the names of the adapters' own parts.
    """

    inner_name = "model"

    def __init__(self, survey: Survey, prepared: Prepared) -> None:
        super().__init__()
        self.model = survey.model
        self.training = survey.model.training
        self._steering = Steering((prepared.name,))
        self._replication = prepared.replication
        try:
            attach(survey, prepared, self._steering)
        except BaseException:
            self._undo_replication()
            raise
        self.peft_config = {prepared.name: prepared.config}
        self.prefix = prepared.config.prefix
        self.targeted_module_names, self.targeted_parameter_names = [], []
        self._list_targets(prepared)
        self._host = HostState(survey)
        self._norms = NormStatistics.of(survey)
        self._beginnings = Beginnings()
        put(prepared.statistics, survey)
        try:
            self._begin(prepared)
            # New factors train already.
            is_right = prepared.config.inference_mode == prepared.is_frozen
            if prepared.copies or not is_right or prepared.config.trained_biases != "none":
                self._set_trainable([prepared.name], trainable=not prepared.config.inference_mode)
        except BaseException:
            self.unload()
            raise

    @property
    def active_adapter(self) -> str | list[str]:  # type: ignore[override]
        """The active adapter, or a list of several, as PEFT's tuners have it."""
        return self._first_active() if len(self._steering.active) < 2 else [*self._steering.active]  # noqa: PLR2004

    def peft_class(self) -> str:
        """Return PEFT's tuner of the method."""
        return {"lora_": "tuners.lora.model.LoraModel", "ia3_": "tuners.ia3.model.IA3Model"}[self.prefix]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the user's model."""
        return self.model(*args, **kwargs)

    def get_base_model(self) -> nn.Module:
        """Return the user's model, adapters included."""
        return self.model
