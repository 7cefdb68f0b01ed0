"""Sums of several adapters' tensors, pruned and by the majority of signs, as in PEFT's ``merge_utils`` (0.21.2).

Sources of the methods: TIES, arXiv:2306.01708; DARE, arXiv:2311.03099.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...warn import warn
from ..checks import check_choice, check_rank, invalid

PRUNING = ("ties", "dare_ties", "dare_linear", "magnitude_prune")
TRUNCATING = ("svd", *(f"{each}_svd" for each in PRUNING))
COMBINATIONS = ("svd", "cat", "linear", *PRUNING, *TRUNCATING[1:])
SIGNS = ("total", "frequency")
DRIVERS = (None, "gesvd", "gesvdj", "gesvda")


@dataclass(frozen=True, slots=True)
class Combination:
    """One of PEFT's combinations with its options, checked.

    Attributes:
        kind: ``cat``, ``linear`` or a pruning one, of the factors; ``svd`` or ``..._svd``, of the updates.
        svd_rank: Rank of the result of ``svd``; the largest of the adapters' if ``None``.
        svd_clamp: Quantile of the values of its factors to clamp them at.
        svd_full_matrices: Whether the decomposition computes vectors that are cut off again.
        svd_driver: cuSOLVER's method.
        density: Share of the values that pruning keeps.
        majority_sign_method: The sign that wins: of the sum, or of most values.

    Raises:
        InvalidConfig: Naming the option, its value and the way out.
    """

    kind: str = "svd"
    svd_rank: int | None = None
    svd_clamp: float | None = None
    svd_full_matrices: bool = True
    svd_driver: str | None = None
    density: float | None = None
    majority_sign_method: str = "total"

    def __post_init__(self) -> None:
        check_choice("combination_type", self.kind, COMBINATIONS)
        check_choice("majority_sign_method", self.majority_sign_method, SIGNS)
        check_choice("svd_driver", self.svd_driver, DRIVERS)
        if self.svd_rank is not None:
            check_rank("svd_rank", self.svd_rank)
        for name in ("svd_clamp", "density"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, float | int) or not value >= 0):
                raise invalid(name, value, "is not usable: give a number from 0 to 1.")
        if self.svd_clamp is not None and self.svd_clamp > 1:
            raise invalid("svd_clamp", self.svd_clamp, "is no quantile: give a number from 0 to 1.")
        for name in ("svd_rank", "svd_clamp", "svd_driver"):
            if getattr(self, name) is not None and not self.truncates:
                way_out = f"is for 'svd' and the combinations that end with it, not for {self.kind!r}: leave it out."
                raise invalid(name, getattr(self, name), way_out)
        self._check_density()

    def _check_density(self) -> None:
        """Reject a share of values to keep that does not fit the kind."""
        is_pruning = self.kind.removesuffix("_svd") in PRUNING
        if is_pruning != (self.density is not None):
            way_out = "needs the share of values to keep: give density=0.5" if is_pruning else "prunes nothing"
            raise invalid("density", self.density, f"does not fit: combination_type={self.kind!r} {way_out}.")
        if self.density == 0 and self.kind.startswith("dare"):
            raise invalid("density", self.density, "keeps nothing, and 'dare' divides by it: give a number above 0.")

    @property
    def truncates(self) -> bool:
        """Whether the sum is cut to a rank."""
        return self.kind in TRUNCATING

    @property
    def is_product(self) -> bool:
        """Whether the sum follows from the factors, so that the updates are never computed."""
        return self.kind == "cat" or (self.kind == "svd" and self.svd_clamp is None and self.svd_driver is None)

    def for_number(self, adapters: int) -> "Combination":
        """Return the combination for a number of adapters: of one it is ``linear``, as in PEFT, unless it is cut."""
        is_cut = self.truncates and (self.svd_rank is not None or self.svd_clamp is not None)
        return self if adapters > 1 or is_cut else Combination("linear")

    def sum(self, tensors: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
        """Return the combination of tensors of one shape.

        The random numbers of ``dare`` are drawn in the order of the tensors.
        """
        method = self.kind.removesuffix("_svd")
        stacked = torch.stack([self._prune(tensor) for tensor in tensors] if method in PRUNING else [*tensors])
        shares = torch.tensor(weights, device=stacked.device).view(-1, *[1] * tensors[0].ndim)
        if not method.endswith("ties"):
            return (stacked * shares).sum(0)
        votes = stacked if self.majority_sign_method == "total" else stacked.sign()
        agrees = stacked.sign() == torch.where(votes.sum(0) >= 0, 1, -1)
        return (stacked * shares * agrees).sum(0) / agrees.sum(0).clamp(min=1.0)

    def _prune(self, tensor: torch.Tensor) -> torch.Tensor:
        """Keep the largest values of a tensor, or with ``dare`` random ones, which are scaled up for the others."""
        density: Any = self.density
        if density >= 1:
            message = f"The density {density} is greater than or equal to 1, no pruning will be performed."
            warn(message)
            return tensor
        if self.kind.startswith("dare"):
            return (tensor * torch.bernoulli(torch.full_like(tensor, density))).div(density)
        mask = torch.zeros_like(tensor).reshape(-1)
        mask[tensor.abs().reshape(-1).topk(int(density * tensor.numel())).indices] = 1
        pruned: torch.Tensor = tensor * mask.reshape(tensor.shape)
        return pruned
