"""What the adapter tests share: random adapters, bare expert parameters, and a fingerprint that catches any change."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


class Experts(nn.Module):
    """Three gated experts in two bare parameters, stored (E, out, in), or (E, in, out) where ``is_transposed``."""

    def __init__(self, *, is_transposed: bool, experts: int = 3, width: int = 8, hidden: int = 6) -> None:
        super().__init__()
        self.num_experts = experts
        self.is_transposed = is_transposed
        self.gate_up_proj = nn.Parameter(torch.randn(self._shape(width, 2 * hidden)) * 0.3)
        self.down_proj = nn.Parameter(torch.randn(self._shape(hidden, width)) * 0.3)

    def _shape(self, read: int, written: int) -> tuple[int, int, int]:
        return (self.num_experts, read, written) if self.is_transposed else (self.num_experts, written, read)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what every expert makes of every token, (E, tokens, width)."""
        first, second = self.gate_up_proj, self.down_proj
        if not self.is_transposed:
            first, second = first.mT, second.mT
        gate, up = (x @ first).chunk(2, -1)
        result: torch.Tensor = (nn.functional.silu(gate) * up) @ second
        return result


class Mixture(nn.Module):
    """A router over ``Experts``, and a linear layer before them."""

    def __init__(self, *, is_transposed: bool = False, width: int = 8) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.router = nn.Linear(width, 3)
        self.experts = Experts(is_transposed=is_transposed, width=width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the experts' answers, weighted, (tokens, width)."""
        x = self.dense(x)
        shares = self.router(x).softmax(-1)
        return torch.einsum("etw,te->tw", self.experts(x.expand(3, -1, -1)), shares)


def adapter_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the name and the parameter of every factor and every copy of a saved module, of all adapters."""
    for name, parameter in model.named_parameters():
        if "lora_" in name or "modules_to_save." in name:
            yield name, parameter


def randomise(model: nn.Module, seed: int = 0, std: float = 0.2) -> None:
    """Give every adapter of ``model`` random values, the same ones for the same names and shapes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(adapter_parameters(model), key=lambda pair: pair[0]):
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * std)


@dataclass(frozen=True)
class Fingerprint:
    """All that an operation which fails must leave as it was; equal fingerprints mean an unchanged model.

    Attributes:
        modules: Per path: the module itself, by id, its class, its mode, its attributes and its hooks.
        tensors: Per key: the tensor itself, by id, its dtype, device, gradient flag and bytes.
        kept: The objects behind the ids, so that no id is given out again.
    """

    modules: dict[str, Any]
    tensors: dict[str, Any]
    kept: list[Any] = field(compare=False, repr=False)


def fingerprint(model: nn.Module) -> Fingerprint:
    """Return the state of ``model``: structure, weights to the bit, gradient flags, modes, attributes, hooks."""
    modules = dict(model.named_modules(remove_duplicate=False))
    tensors = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    hooks = [hook for module in modules.values() for name in HOOKS for hook in vars(module)[name].values()]
    values = [value for module in modules.values() for value in vars(module).values()]
    return Fingerprint(
        {path: _module_facts(module) for path, module in modules.items()},
        {key: _tensor_facts(tensor) for key, tensor in tensors.items()},
        [*modules.values(), *tensors.values(), *hooks, *values],
    )


def _module_facts(module: nn.Module) -> Any:
    attributes = {
        key: repr(value) if isinstance(value, bool | int | float | str | dict | list | tuple | None) else id(value)
        for key, value in vars(module).items()
        if not key.startswith("_")
    }
    hooks = {name: [id(hook) for hook in vars(module)[name].values()] for name in HOOKS}
    return id(module), type(module).__qualname__, module.training, attributes, hooks


def _tensor_facts(tensor: torch.Tensor) -> Any:
    if isinstance(tensor, nn.parameter.UninitializedParameter):
        return id(tensor), tensor.requires_grad
    content = "" if tensor.is_meta else hashlib.sha256(_bytes(tensor)).hexdigest()
    return id(tensor), tuple(tensor.shape), str(tensor.dtype), str(tensor.device), tensor.requires_grad, content


def _bytes(tensor: torch.Tensor) -> bytes:
    raw: bytes = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return raw
