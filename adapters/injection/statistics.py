"""Running statistics of norms: a training in train mode changes them in the base model, so adapter files hold them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ...discovery import is_compiled
from .apply import PREFIX
from .host_model import Survey


def statistics_in(survey: Survey) -> dict[str, torch.Tensor]:
    """Return the running statistics of a model's norms, such as those of ``nn.BatchNorm2d``, under keys of files."""
    return {f"{PREFIX}{path}.{name}": tensor for path, norm in _norms(survey) for name, tensor in _buffers(norm)}


def _norms(survey: Survey) -> Iterator[tuple[str, nn.Module]]:
    for path, site in survey.sites.items():
        if not is_compiled(site.module) and site.module._buffers.get("running_mean") is not None:  # noqa: SLF001 - not a Wrapper's
            yield path, site.module


def _buffers(norm: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    unsaved = norm._non_persistent_buffers_set  # noqa: SLF001 - it has no public name
    return ((name, tensor) for name, tensor in norm.named_buffers(recurse=False) if name not in unsaved)


@dataclass(frozen=True, slots=True)
class NormStatistics:
    """The running statistics that a model had before its first adapter.

    Attributes:
        before: Copies of the values, by key.
    """

    before: Mapping[str, torch.Tensor]

    @classmethod
    def of(cls, survey: Survey) -> "NormStatistics":
        """Copy the statistics of a model."""
        return cls({key: tensor.detach().clone() for key, tensor in statistics_in(survey).items()})

    def changed(self, survey: Survey) -> dict[str, torch.Tensor]:
        """Return the statistics of the norms that were in train mode since: any of their values differs.

        A model that was built on meta had no values then; of such a norm its mode decides.
        """
        if not self.before:
            return {}
        found: dict[str, torch.Tensor] = {}
        for path, norm in _norms(survey):
            own = {f"{PREFIX}{path}.{name}": tensor for name, tensor in _buffers(norm)}
            if any(self._differs(key, tensor, is_training=norm.training) for key, tensor in own.items()):
                found |= own
        return found

    def _differs(self, key: str, tensor: torch.Tensor, *, is_training: bool) -> bool:
        before = self.before.get(key)
        if before is None or before.is_meta or tensor.is_meta:
            return is_training
        return not torch.equal(before.to(tensor), tensor)

    def restore(self, survey: Survey) -> None:
        """Give the norms of a model the values they had."""
        put({key: value for key, value in self.before.items() if not value.is_meta}, survey)


def put(values: Mapping[str, torch.Tensor], survey: Survey) -> bool:
    """Copy statistics into a model's norms; return whether that changed any that it had."""
    norms = statistics_in(survey) if values else {}
    targets = {key: norms[key] for key in values.keys() & norms.keys() if not norms[key].is_meta}
    is_changing = any(not torch.equal(target, values[key].to(target)) for key, target in targets.items())
    with torch.no_grad():
        for key, target in targets.items():
            target.copy_(values[key])
    return is_changing
