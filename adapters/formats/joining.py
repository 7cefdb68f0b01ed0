"""Join the factors of several layers into those of the one layer that a checkpoint has for them, and split them again.

Rows of a joined layer belong to its parts in order. If all parts have one first factor, the joined layer has it too.
Else its rank is that of all parts together: the first factors stand below each other, the second on the diagonal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...errors import InvalidConfig

FIRST, SECOND, MAGNITUDE, BIAS = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector", "lora_B.bias"
BY_ROW = (SECOND, MAGNITUDE, BIAS)
"""Tensors that have a row, or an entry, for each output."""


@dataclass(frozen=True)
class Factor:
    """The factors of one layer.

    Attributes:
        tensors: The tensors by their names in PEFT's files.
        alpha: The number that, divided by the rank, scales their product.
    """

    tensors: dict[str, torch.Tensor]
    alpha: float

    @property
    def rank(self) -> int:
        """The rank."""
        return self.tensors[FIRST].shape[0]

    @property
    def rows(self) -> int:
        """The number of outputs."""
        return self.tensors[SECOND].shape[0]

    def equals(self, other: "Factor") -> bool:
        """Return whether other factors are the same, bit for bit."""
        own, theirs = self.tensors, other.tensors
        return (
            self.alpha == other.alpha
            and own.keys() == theirs.keys()
            and all(own[k].dtype == theirs[k].dtype and torch.equal(own[k], theirs[k]) for k in own)
        )


How = str
"""How parts are joined: ``shared``, or the positions of the parts on the diagonal, such as ``0,2``."""


def join(parts: Sequence[Factor | None], rows: Sequence[int], name: str) -> tuple[Factor, How]:
    """Return the factors of a joined layer, and how they are joined.

    Args:
        parts: The factors of each part; ``None`` for one without.
        rows: The outputs of each part.
        name: The joined layer, for errors.

    Raises:
        InvalidConfig: If the parts are scaled differently, or hold other tensors.
    """
    there = [part for part in parts if part is not None]
    first = there[0]
    _check_alike(there, name, is_whole=len(there) == len(parts))
    by_row = {key: torch.cat([part.tensors[key] for part in there]) for key in first.tensors if key in BY_ROW[1:]}
    firsts = [part.tensors[FIRST] for part in there]
    is_one = all(
        part.alpha == first.alpha and torch.equal(own, firsts[0]) for part, own in zip(there, firsts, strict=True)
    )
    if is_one and len(there) == len(parts):
        second = torch.cat([part.tensors[SECOND] for part in there])
        return Factor({FIRST: firsts[0], SECOND: second, **by_row}, first.alpha), "shared"
    second = _stack_diagonally(parts, rows)
    alpha = first.alpha / first.rank * second.shape[1]
    how = ",".join(f"{place}:{part.rank}" for place, part in enumerate(parts) if part is not None)
    return Factor({FIRST: torch.cat(firsts), SECOND: second, **by_row}, alpha), how


def _stack_diagonally(parts: Sequence[Factor | None], rows: Sequence[int]) -> torch.Tensor:
    """Return the second factors on the diagonal of one, with zeros for a part without."""
    there = [part for part in parts if part is not None]
    second = there[0].tensors[SECOND].new_zeros(sum(rows), sum(part.rank for part in there))
    column = 0
    for (row, height), part in zip(_list_rows(rows), parts, strict=True):
        if part is not None:
            second[row : row + height, column : column + part.rank] = part.tensors[SECOND]
            column += part.rank
    return second


def _check_alike(there: Sequence[Factor], name: str, *, is_whole: bool) -> None:
    """Check that factors hold the same tensors and are scaled alike."""
    first = there[0]
    is_partial = not is_whole and {*first.tensors} > {FIRST, SECOND}
    if is_partial or any(part.tensors.keys() != first.tensors.keys() for part in there):
        message = f"The layers that are {name} there hold different tensors, or DoRA has some of them alone"
        raise InvalidConfig(f"{message}: that has no counterpart.", layer=name)
    if len({part.alpha / part.rank for part in there}) > 1:
        message = f"The layers that are {name} there have different ratios of alpha and rank, where it has one"
        raise InvalidConfig(f"{message}. Scale their factors to the same first.", layer=name)


def split(joined: Factor, rows: Sequence[int], how: How | None = None) -> list[Factor | None]:
    """Return the factors of each part of a joined layer, from which ``join`` makes the same again.

    Args:
        joined: The factors.
        rows: The outputs of each part.
        how: How it was joined, if that is known; else it follows from the zeros.
    """
    if how is None:
        equal, rest = divmod(joined.rank, len(rows))
        even = ",".join(f"{place}:{equal}" for place in range(len(rows)))
        how = "shared" if rest or not joined.tensors[SECOND].any() else even
    if how != "shared":
        found = _split_diagonal(joined, rows, how)
        if found is not None:
            return found
    return [
        Factor(
            {FIRST: joined.tensors[FIRST]}
            | {k: t[start : start + height] for k, t in joined.tensors.items() if k in BY_ROW},
            joined.alpha,
        )
        for start, height in _list_rows(rows)
    ]


def _split_diagonal(joined: Factor, rows: Sequence[int], how: How) -> list[Factor | None] | None:
    """Return the parts on the diagonal; ``None`` if these are not all that the second factor holds."""
    pairs = [one.partition(":") for one in how.split(",")]
    if not all(place.isdecimal() and rank.isdecimal() for place, _, rank in pairs):  # from a file's metadata
        return None
    ranks = {int(place): int(rank) for place, _, rank in pairs}
    if sum(ranks.values()) != joined.rank or not all(place < len(rows) and rank for place, rank in ranks.items()):
        return None
    found: list[Factor | None] = []
    column = 0
    for place, (start, height) in enumerate(_list_rows(rows)):
        rank = ranks.get(place)
        if rank is None:
            found.append(None)
            continue
        own = {key: joined.tensors[key][start : start + height] for key in BY_ROW[1:] if key in joined.tensors}
        own[FIRST] = joined.tensors[FIRST][column : column + rank]
        own[SECOND] = joined.tensors[SECOND][start : start + height, column : column + rank]
        found.append(Factor(own, joined.alpha * rank / joined.rank))
        column += rank
    again, _ = join(found, rows, "")
    return found if again.equals(joined) else None


def _list_rows(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Return the first row and the number of rows of each part."""
    starts = [sum(rows[:place]) for place in range(len(rows))]
    return [*zip(starts, rows, strict=True)]


def swap(factor: Factor) -> Factor:
    """Return the factors of a layer whose halves of rows are the other way round."""
    tensors = {
        key: torch.cat([*reversed(tensor.chunk(2))]) if key in BY_ROW else tensor
        for key, tensor in factor.tensors.items()
    }
    return Factor(tensors, factor.alpha)
