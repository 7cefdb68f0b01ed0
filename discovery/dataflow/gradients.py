"""Gradients on a tape: the weights that none can reach, because the model itself cuts them off.

A model may run a part under ``torch.no_grad()`` (a frozen teacher), or detach what a part wrote before it reaches an
output. The last block of a stack may write what nobody reads: one of two streams. Nothing is concluded where the way to
the outputs is lost, such as in a function of another library.
"""

from collections import defaultdict
from collections.abc import Iterable

from ...domain.patterns import pattern_of
from .operations import Op, Tape

Owner = tuple[str, str]
"""(module path, parameter name)."""

NO_GRAD = "it runs without gradients (torch.no_grad) in every forward"
DETACHED = "what it writes is detached before every output"
UNREAD = "no output is computed from it, as in other blocks"


def find_cut_off(tapes: Iterable[Tape]) -> dict[Owner, str]:
    """Return the reason for each parameter that no forward lets a gradient reach."""
    reasons: dict[Owner, str] = {}
    learning: set[Owner] = set()
    for tape in tapes:
        read = _list_read(tape, tape.ops)
        differentiated = _list_read(tape, (op for op in tape.ops if not op.is_cut))
        behind = _list_behind(tape, through_cuts=True)
        detached = differentiated & (behind - _list_behind(tape, through_cuts=False))
        cut = _find_unread(tape, differentiated, behind)
        cut |= {tape.parameters[value]: DETACHED for value in detached}
        cut |= {tape.parameters[value]: NO_GRAD for value in read - differentiated}
        reasons |= cut
        learning.update({tape.parameters[value] for value in read} - cut.keys())
    return {owner: says for owner, says in reasons.items() if owner not in learning}


def _find_unread(tape: Tape, differentiated: set[int], behind: set[int]) -> dict[Owner, str]:
    """Return the parameters that no output was computed from, unlike those at the same place in all blocks before.

    Where these are all alike, they may serve a loss that only a training computes. Between blocks that are read, the
    inputs may be too short for what a block computes, such as the summary of every 128 tokens.
    """
    read: dict[Owner, list[list[int]]] = defaultdict(list)
    unread: dict[Owner, dict[str, list[int]]] = defaultdict(dict)
    for value in () if tape.is_lost else differentiated:
        path, name = tape.parameters[value]
        if value in behind:
            read[pattern_of(path), name].append(_indices(path))
        else:
            unread[pattern_of(path), name][path] = _indices(path)
    return {
        (path, place[1]): UNREAD
        for place, paths in unread.items()
        if place in read and min(paths.values()) > max(read[place])
        for path in paths
    }


def _indices(path: str) -> list[int]:
    """Return the indices in a path: the places of its blocks."""
    return [int(part) for part in path.split(".") if part.isdecimal()]


def _list_read(tape: Tape, ops: Iterable[Op]) -> set[int]:
    """Return the parameters that some operations of a tape read, by their values."""
    return {value for op in ops for value in op.inputs if value in tape.parameters}


def _list_behind(tape: Tape, *, through_cuts: bool) -> set[int]:
    """Return the values that the outputs were computed from, also through operations that cut gradients off or not."""
    producer = {value: op for op in tape.ops for value in op.outputs}
    behind, waiting = set(tape.outputs), [*tape.outputs]
    while waiting:
        op = producer.get(waiting.pop())
        if op is None or (op.is_cut and not through_cuts):
            continue
        new = {*op.inputs} - behind
        behind |= new
        waiting += new
    return behind
