"""A module that stands in for another one."""

from typing import Any

from torch import nn


class Wrapper(nn.Module):
    """A module that looks up on its inner one whatever attribute it lacks itself.

    Model code reads ``layer.weight.dtype``, ``embedding.num_embeddings`` or ``model.config`` of what it thinks is still
    there.

    Attributes:
        inner_name: Name of the child that is stood in for.
    """

    inner_name: str

    def inner(self) -> nn.Module | None:
        """Return the module that is stood in for; ``None`` while this one is half built or half unpickled."""
        children: dict[str, nn.Module | None] = self.__dict__.get("_modules", {})
        return children.get(self.inner_name)

    def wrapped(self) -> nn.Module:
        """Return the module that was there, whatever answers now."""
        return self._modules[self.inner_name]  # type: ignore[return-value]  # whole ones have it

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            inner = self.inner()
            if inner is None or name.startswith("__"):
                raise
            return getattr(inner, name)
