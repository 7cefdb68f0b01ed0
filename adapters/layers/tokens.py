"""Rows of an embedding that train: each replaces the row of its token (PEFT's ``trainable_token_indices``, 0.21.2).

An output layer tied to the embedding uses the same rows.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ...errors import InvalidConfig
from .as_peft import OwnAdapters, PeftLayer
from .base_layer import adapter_dtype, count_rows, run_with
from .planned import PlannedAdapter
from .wrappers import AdapterLayer, Child, Steering, init_module

KEY = "token_adapter.trainable_tokens_delta"
"""The name of the rows in files, below the path of their module."""


class TokenRows(OwnAdapters, PeftLayer, nn.Module):
    """The child of a token layer that holds its rows, which PEFT's functions take for the layer with the adapters.

    Attributes:
        base_layer: The replaced module.
        trainable_tokens_delta: The rows, by adapter.
    """

    peft_name = "tuners.trainable_tokens.layer.TrainableTokensLayer"
    containers = ("trainable_tokens_delta",)
    trainable_tokens_delta: Any

    def __init__(self, layer: "TokenLayer") -> None:
        init_module(self, layer=layer)  # no child, of which it is one itself

    @property
    def steering(self) -> Steering:
        """The switch of the token layer."""
        return self.__dict__["layer"].steering  # type: ignore[no-any-return]

    @steering.setter
    def steering(self, steering: Steering) -> None:
        self.__dict__["layer"].steering = steering

    @property
    def merged_adapters(self) -> list[str]:  # type: ignore[override]
        """Names of the adapters merged into the base weights."""
        return self.__dict__["layer"].merged_adapters  # type: ignore[no-any-return]

    @property
    def merged(self) -> bool:
        """Whether rows are merged into the base weight."""
        return bool(self.merged_adapters)

    @property
    def trainable_tokens_original(self) -> dict[str, torch.Tensor]:
        """The rows that the base layer has without adapters, for each adapter those of its tokens."""
        layer = self.__dict__["layer"]
        weight = layer._kept.get("weight", layer.base().weight).detach()  # noqa: SLF001 - its own child
        return {name: weight[tokens] for name, tokens in self.token_indices.items()}

    @property
    def in_features(self) -> int:
        """Number of ids or features that the replaced module reads."""
        return self.__dict__["layer"].in_features  # type: ignore[no-any-return]

    @property
    def out_features(self) -> int:
        """Number of features or scores that it writes."""
        return self.__dict__["layer"].out_features  # type: ignore[no-any-return]

    @property
    def token_indices(self) -> dict[str, list[int]]:
        """The tokens whose rows each adapter trains."""
        return {name: [*planned.tokens] for name, planned in self.__dict__["layer"].planned.items()}

    @property
    def tied_adapter(self) -> bool:
        """Whether all rows are those of another layer with the same weight."""
        return not self.trainable_tokens_delta

    def adapters(self) -> list[str]:
        """Return the names of the adapters with rows here, of their own or of the layer with the same weight."""
        return [*self.__dict__["layer"].planned]


class TokenLayer(OwnAdapters, AdapterLayer):
    """An embedding, or an output layer, with rows that train in place of its own.

    Attributes:
        token_adapter: The module that holds the base layer and the rows of each adapter, as in PEFT.
        sources: The layer whose rows an adapter uses here too, because both have one weight.
    """

    inner_name = "token_adapter.base_layer"
    peft_name = "utils.other.TrainableTokensWrapper"
    takes_samples = True
    token_adapter: Any
    sources: dict[str, "TokenLayer"]

    def __init__(self, base_layer: nn.Module, steering: Steering) -> None:
        init_module(self, steering=steering, planned={}, merged_adapters=[], _kept={}, sources={})
        self.token_adapter = TokenRows(self)
        self.token_adapter.base_layer, self.token_adapter.trainable_tokens_delta = base_layer, nn.ParameterDict()
        for module in (self, self.token_adapter, self._deltas):
            module.__dict__["training"] = base_layer.training

    @classmethod
    def create_parts(cls, base: nn.Module, planned: PlannedAdapter) -> dict[str, Child]:
        """Create the rows (tokens, features) with the values they have in the base layer; none if they are tied."""
        if planned.tied_to:
            return {}
        weight: Any = base.weight
        rows = weight.detach()[[*planned.tokens]].to(adapter_dtype(weight.dtype))
        return {KEY: nn.Parameter(rows)}

    @classmethod
    def initialise(cls, parts: Mapping[str, Child], *, how: bool | str) -> None:
        """Keep the rows: they are created as the base layer has them."""

    def reset(self, adapter: str, *, how: bool | str) -> None:  # noqa: ARG002 - rows begin in one way
        """Give the rows of an adapter the values that they have in the base layer."""
        if not self.is_tied(adapter):
            rows = self.create_parts(self.base(), self.planned[adapter])[KEY]
            self.rows(adapter).data.copy_(rows)  # type: ignore[arg-type]  # a parameter

    def insert(self, adapter: str, planned: PlannedAdapter, parts: Mapping[str, Child]) -> None:
        """Add an adapter to this layer."""
        self.planned[adapter] = planned
        for part in parts.values():
            self._deltas[adapter] = part

    def remove(self, adapter: str) -> None:
        """Remove an adapter, if it is on this layer."""
        self.planned.pop(adapter, None)
        self.sources.pop(adapter, None)
        if adapter in self._deltas:
            del self._deltas[adapter]

    def put(self, module: nn.Module) -> None:
        """Put a module in the place of the replaced one."""
        self.token_adapter.base_layer = module

    def wrapped(self) -> nn.Module:
        """Return the replaced module."""
        return self.token_adapter.base_layer  # type: ignore[no-any-return]

    def inner(self) -> nn.Module | None:
        """Return the module to look attributes up on; ``None`` while construction or unpickling is incomplete."""
        return self.wrapped() if "token_adapter" in self.__dict__.get("_modules", {}) else None

    @property
    def original_module(self) -> nn.Module:
        """The replaced module, by the name it has in PEFT's wrapper."""
        return self.wrapped()

    @property
    def weight(self) -> torch.Tensor:
        """The weight that the next forward uses: models read it from an embedding."""
        adapters = self.effective_adapters()
        return self._replaced(adapters) if adapters else self.wrapped().weight  # type: ignore[return-value]

    @property
    def _deltas(self) -> Any:
        return self.token_adapter.trainable_tokens_delta

    @property
    def adapter_layer_names(self) -> tuple[str, ...]:
        """The path of the rows, as PEFT has it."""
        return (KEY,)

    def adapter_state_dict_load_map(self, adapter_name: str) -> dict[str, str]:
        """Return the name of an adapter's rows in this module's state dict, by their name in files."""
        return {KEY: f"{KEY}.{adapter_name}"} if adapter_name in self._deltas else {}

    def is_tied(self, adapter: str) -> bool:
        """Return whether an adapter uses the rows of another layer here."""
        return bool(self.planned[adapter].tied_to)

    def rows(self, adapter: str) -> nn.Parameter:
        """Return the rows of an adapter (tokens, features)."""
        rows: nn.Parameter = self.sources[adapter].rows(adapter) if adapter in self.sources else self._deltas[adapter]
        return rows

    def check_mergeable(self, path: str, adapters: Iterable[str]) -> None:
        """Reject the same row of two adapters too."""
        super().check_mergeable(path, adapters)
        self.check_rows_once(path, (*self.merged_adapters, *adapters))

    def check_rows_once(self, path: str, adapters: Iterable[str]) -> None:
        """Reject adapters that train the same row.

        Raises:
            InvalidConfig: Naming the adapters and the rows.
        """
        owners: dict[int, str] = {}
        for adapter in dict.fromkeys(name for name in adapters if name in self.planned):
            if twice := sorted(owners.keys() & {*self.planned[adapter].tokens}):
                message = (
                    f"Token indices of adapter {adapter!r} are already defined and would result in undefined merging"
                )
                why = f"{owners[twice[0]]!r} has rows {twice} of {path!r} too"
                raise InvalidConfig(f"{message} behavior: {why}. Use one of both.", path=path, rows=twice)
            owners |= dict.fromkeys(self.planned[adapter].tokens, adapter)

    def parts(self, adapter: str) -> dict[str, Child]:
        """Return the rows of an adapter by their name in files; none if they are those of another layer."""
        return {KEY: self._deltas[adapter]} if adapter in self._deltas else {}

    def adapts(self, planned: PlannedAdapter) -> bool:
        """Return whether ``planned`` is of rows too."""
        return bool(planned.tokens)

    def updated(self, adapters: Iterable[str]) -> dict[str, torch.Tensor]:
        """Return the weight with the rows of these adapters; nothing if it is merged on the layer that has them."""
        names = [*adapters]
        return {} if all(map(self.is_tied, names)) else {"weight": self._replaced(names)}

    def _replaced(self, adapters: Iterable[str]) -> torch.Tensor:
        weight: Any = self.base().weight
        for adapter in adapters:
            tokens = torch.tensor(self.planned[adapter].tokens, device=weight.device)
            weight = weight.index_copy(0, tokens, self.rows(adapter).to(weight))
        return weight  # type: ignore[no-any-return]

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the base layer with the rows of the active adapters, or with those of each sample's adapter.

        Only the rows are computed apart. A copy of the weight, as large as the vocabulary, is made for a base layer
        with a forward or options of its own.
        """
        adapters, samples = self.effective_adapters(), self.steering.samples
        base: Any = self.wrapped()
        if samples is not None:
            return self._run_samples(x, samples, *args, **kwargs)
        if not adapters:
            return base(x, *args, **kwargs)
        replace = _REPLACEMENTS.get(type(base).forward)
        if replace is None or args or kwargs or getattr(base, "max_norm", None) or getattr(base, "sparse", False):
            return run_with(base, {"weight": self._replaced(adapters)}, (x, *args), kwargs)
        output = base(x)
        for adapter in adapters:
            output = replace(base, x, output, self.planned[adapter].tokens, self.rows(adapter).to(base.weight))
        return output

    def _run_samples(self, x: torch.Tensor, samples: tuple[str, ...], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the rows of each sample with the weight of its adapter.

        Raises:
            InvalidConfig: If the rows cannot be split evenly among the samples.
        """
        times = count_rows(x, samples)
        weights = {name: self._replaced([name] if name in self.planned else []) for name in {*samples}}
        return torch.cat(
            [
                run_with(self.wrapped(), {"weight": weights[name]}, (part, *args), kwargs)
                for name, part in zip(samples, torch.split(x, times), strict=True)
            ]
        )


def _replace_embedded(
    base: nn.Embedding, x: torch.Tensor, output: torch.Tensor, tokens: tuple[int, ...], rows: torch.Tensor
) -> torch.Tensor:
    """Return the output of an embedding with the rows of ``tokens`` in it."""
    ordered = sorted(tokens)
    places = torch.tensor([tokens.index(token) for token in ordered], device=x.device)
    known = torch.tensor(ordered, device=x.device)
    found = torch.searchsorted(known, x).clamp(max=len(tokens) - 1)
    padding = tokens.index(base.padding_idx) if base.padding_idx in tokens else None  # its row gets no gradient
    replaced = functional.embedding(places[found], rows, padding, scale_grad_by_freq=base.scale_grad_by_freq)
    return torch.where((known[found] == x).unsqueeze(-1), replaced, output)


def _replace_scored(
    base: nn.Linear, x: torch.Tensor, output: torch.Tensor, tokens: tuple[int, ...], rows: torch.Tensor
) -> torch.Tensor:
    """Return the output of a linear layer with the scores of ``tokens`` by their rows in it."""
    which = torch.tensor(tokens, device=output.device)
    scores = functional.linear(x, rows, None if base.bias is None else base.bias[which])
    return output.index_copy(-1, which, scores.to(output.dtype))


_REPLACEMENTS: dict[Any, Any] = {
    nn.Embedding.forward: _replace_embedded,
    nn.Linear.forward: _replace_scored,
}
"""How rows are replaced in the output of a layer, by the forward of its class."""
