"""``nn.Module.__init__`` in half its time: an adapter is five modules, and making them is most of an injection."""

from typing import Any

from torch import nn

_EMPTY = nn.Module().__dict__
_PLAIN = {name: value for name, value in _EMPTY.items() if value is None or isinstance(value, bool)}
_FRESH = tuple((name, type(value)) for name, value in _EMPTY.items() if name not in _PLAIN)


def make_blank(module: nn.Module, **own: Any) -> None:
    """Give a module that is being made what ``nn.Module.__init__`` gives it, and attributes of its own.

    Past ``nn.Module``'s assignment, which sorts every value into parameters, modules and the rest: ``own`` may hold
    neither of these.
    """
    attributes = module.__dict__
    attributes.update(_PLAIN, **own)
    for name, make in _FRESH:
        attributes[name] = make()


def blank_dict() -> nn.ModuleDict:
    """Return an empty ``ModuleDict``."""
    modules = nn.ModuleDict.__new__(nn.ModuleDict)
    make_blank(modules)
    return modules
