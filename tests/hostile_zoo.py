"""Small hostile modules, and a record of everything a scan of one could change.

None of them can hurt the process that only reads it; each shows one way in which model code of others may behave.
"""

import random
import sys
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
from edge_zoo import Stack
from torch import nn


class Plain(nn.Module):
    """Two linears that work, for hostile modules to build on."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return as many vectors as came in."""
        return self.second(self.first(x).relu())


class Mock:
    """Anything one asks it for: true, callable, iterable much too long."""

    left = 100_000

    def __getattr__(self, name: str) -> "Mock":
        return Mock()

    def __call__(self, *_: Any, **__: Any) -> "Mock":
        """Return another."""
        return Mock()

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> "Mock":
        return self

    def __next__(self) -> "Mock":
        self.left -= 1
        if not self.left:
            raise RuntimeError("somebody read a mock to its end")
        return Mock()

    def __getitem__(self, _: Any) -> "Mock":
        return Mock()

    def __len__(self) -> int:
        return sys.maxsize


class AnswersEverything(Plain):
    """``__getattr__`` returns a truthy mock for every name nobody set: config, get_classifier, hooks and all."""

    def __getattr__(self, name: str) -> Any:
        """Return the parameter or module of that name, or a mock."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return Mock()


class ConfigIsMock(Plain):
    """A configuration that is there and is nothing."""

    config = Mock()
    pretrained_cfg = Mock()
    dummy_inputs = Mock()
    main_input_name = Mock()


class EndlessProperty(Plain):
    """Properties that call each other without end."""

    @property
    def config(self) -> Any:
        """Ask the other."""
        return self.base_model

    @property
    def base_model(self) -> Any:
        """Ask the other."""
        return self.config


class RaisingProperty(Plain):
    """Properties that raise what no ``getattr`` default catches."""

    @property
    def config(self) -> Any:
        """Raise."""
        raise RuntimeError("no configuration for you")

    @property
    def pretrained_cfg(self) -> Any:
        """Raise."""
        raise KeyError("none")

    @property
    def dummy_inputs(self) -> Any:
        """Raise."""
        raise ValueError("none")


class FreshModelEveryTime(Plain):
    """A property that makes a new model at each look: following it never ends."""

    @property
    def base_model(self) -> nn.Module:
        """Return a new one."""
        return FreshModelEveryTime()

    def get_output_embeddings(self) -> nn.Module:
        """Return a layer that is no part of this model."""
        return nn.Linear(2, 2)


class OwnChild(Plain):
    """A module that is its own descendant."""

    def __init__(self) -> None:
        super().__init__()
        self.first.add_module("parent", self)


class SpinsForever(Plain):
    """A forward that never ends, though it computes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Never return."""
        while True:
            x = self.first(x)


class SleepsForever(Plain):
    """A forward that never ends and calls nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Never return."""
        while True:
            time.sleep(0.05)
        return x


class Raises(Plain):
    """A forward that raises what it was given, after it has called one layer."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Raise."""
        self.first(x)
        raise self.error


class RecursesForever(Plain):
    """A forward that calls itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Never return."""
        return self(self.first(x))


class Returns(Plain):
    """A forward that returns something nobody expects."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: torch.Tensor) -> Any:
        """Return it."""
        self.second(self.first(x))
        return self.value


class HostileError(Exception):
    """An error whose text cannot be read."""

    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class Contrary(Plain):
    """A module that cannot be compared, printed, counted or taken for true."""

    __hash__ = nn.Module.__hash__

    def __eq__(self, other: object) -> bool:
        raise TypeError("compared")

    def __bool__(self) -> bool:
        raise TypeError("taken for true")

    def __len__(self) -> int:
        raise TypeError("counted")

    def __repr__(self) -> str:
        raise TypeError("printed")


class Unfinished(Plain):
    """A lazy layer whose weight has no shape yet, an empty slot and a parameter that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.lazy = nn.LazyLinear(8)
        self.register_module("nothing", None)
        self.register_parameter("none", None)


class Vandal(Plain):
    """A forward that changes everything it can reach, and may raise at its end."""

    def __init__(self, *, raises: bool = False) -> None:
        super().__init__()
        self.raises = raises
        self.calls = 0
        self.notes: list[int] = []
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("swapped", torch.zeros(2))
        self.first.register_forward_hook(lambda *_: None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Change buffers, attributes, hooks, flags, modules, training mode and every random state."""
        result = self.second(self.first(x).relu())
        with torch.no_grad():
            self.seen += 1
            self.first.weight.add_(1)
        self.swapped = torch.ones(2)
        self.calls += 1
        self.notes.append(self.calls)
        self.fresh = "attribute"
        self.register_buffer("fresh_buffer", torch.ones(1))
        self.add_module("fresh_module", nn.Linear(2, 2))
        self.first.register_forward_hook(lambda *_: None)
        self.second.register_forward_pre_hook(lambda *_: None)
        self.second.weight.requires_grad_(requires_grad=False)
        self.train(not self.training)
        torch.rand(5)
        random.random()  # noqa: S311 - a random state to be disturbed
        torch.manual_seed(7)
        torch.set_grad_enabled(not torch.is_grad_enabled())
        torch.set_default_dtype(torch.float64)
        if self.raises:
            raise RuntimeError("and now it raises")
        return result


class Everything:
    """All of a model's state and of the process that a scan could change, to be compared."""

    def __init__(self, model: nn.Module) -> None:
        self.tensors = {n: (id(t), t.detach().clone()) for n, t in _tensors(model)}
        self.flags = {n: (t.requires_grad, t.grad is None) for n, t in _tensors(model)}
        self.plain = {
            path: (
                type(module),
                module.training,
                {k: _value(v) for k, v in module.__dict__.items() if not k.startswith("_")},
                {k: [*v] for k, v in module.__dict__.items() if k.endswith("hooks") and isinstance(v, dict)},
                [*module.__dict__],
                [*module._modules],
            )
            for path, module in model.named_modules()
        }
        self.random = (torch.get_rng_state().clone(), random.getstate())
        self.process = (
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
            torch.get_default_device(),
            sys.getrecursionlimit(),
            [len(hooks) for hooks in vars(torch.nn.modules.module).values() if isinstance(hooks, OrderedDict)],
            len(torch.overrides._get_current_function_mode_stack()),
            len(torch.utils._python_dispatch._get_current_dispatch_mode_stack()),
        )

    def differences(self, other: "Everything") -> list[str]:
        """Return what differs, in words."""
        wrong = [n for n, (ident, t) in self.tensors.items() if not _same(ident, t, other.tensors.get(n))]
        wrong += [f"new tensor {name}" for name in other.tensors.keys() - self.tensors]
        wrong += [f"{field} {path}" for field in ("flags", "plain") for path in _unequal(self, other, field)]
        same_random = torch.equal(self.random[0], other.random[0]) and self.random[1] == other.random[1]
        wrong += [] if same_random else ["random state"]
        return wrong + ([] if self.process == other.process else [f"process: {self.process} -> {other.process}"])


def _tensors(model: nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _value(value: Any) -> Any:
    return [*value] if isinstance(value, list) else value


def _same(ident: int, tensor: torch.Tensor, other: tuple[int, torch.Tensor] | None) -> bool:
    return other is not None and ident == other[0] and (tensor.is_meta or torch.equal(tensor, other[1]))


def _unequal(one: Everything, other: Everything, field: str) -> set[str]:
    before, after = getattr(one, field), getattr(other, field)
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


ODD_NAMES = [
    "größe",
    "日本語",
    "it's",
    'say "hi"',
    "a+b*c?",
    "(group)",
    "[0-9]",
    "back\\slash",
    "$end^",
    "a|b",
    "{3}",
    "white space",
    "new\nline",
    "%s{x}",
    "__class__x",
    "\N{ZERO WIDTH SPACE}",
    "\N{PILE OF POO}",
    "q_proj" * 50,
]


def oddly_named(name: str) -> nn.Module:
    """Return blocks whose attention has a layer of this name beside a plain one."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module(name, nn.Linear(8, 8))
            self.plain = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.plain(self._modules[name](x).relu())

    return Stack(Block)


class Light(nn.Linear):
    """A linear that is quick to make."""

    def reset_parameters(self) -> None:
        """Leave the weight as it is: there is none on meta."""


def many_layers(count: int) -> nn.Module:
    """Return so many linears, in blocks of ten, on meta."""

    def block() -> nn.Module:
        return nn.Sequential(*(Light(4, 4, bias=False, device="meta") for _ in range(10)))

    return Stack(block, count=count // 10)


def deep_nest(depth: int) -> nn.Module:
    """Return a linear under so many containers, each holding the next."""
    module: nn.Module = nn.Linear(4, 4)
    for _ in range(depth):
        module = nn.Sequential(module)
    return module
