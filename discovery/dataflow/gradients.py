"""Gradients on a tape: the weights that none can reach, because the model itself cuts them off.

A model may run a part under ``torch.no_grad()`` (a frozen teacher), or detach what a part wrote before it reaches an
output. The last block of a stack may write what nobody reads: one of two streams. Nothing is concluded where the way to
the outputs is lost, such as in a function of another library.
"""

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
        cut = _find_in_tape(tape)
        reasons |= cut
        learning.update({tape.parameters[value] for value in _list_read(tape, tape.ops)} - cut.keys())
    return {owner: says for owner, says in reasons.items() if owner not in learning}


def _find_in_tape(tape: Tape) -> dict[Owner, str]:
    differentiated = _list_read(tape, (op for op in tape.ops if not op.is_cut))
    reasons = {tape.parameters[value]: NO_GRAD for value in _list_read(tape, tape.ops) - differentiated}
    behind = _list_behind(tape, through_cuts=True)
    detached = behind - _list_behind(tape, through_cuts=False)
    reasons = {**{tape.parameters[value]: DETACHED for value in differentiated & detached}, **reasons}
    return {**_find_unread(tape, differentiated, behind), **reasons}


def _find_unread(tape: Tape, differentiated: set[int], behind: set[int]) -> dict[Owner, str]:
    """Return the parameters that no output was computed from, unlike those at the same place in other blocks.

    Where these are all alike, they may serve a loss that only a training computes.
    """
    owners = {value: tape.parameters[value] for value in differentiated}
    read = {(pattern_of(path), name) for value, (path, name) in owners.items() if value in behind}
    unread = (owner for value, owner in owners.items() if value not in behind)
    return {(path, name): UNREAD for path, name in unread if not tape.is_lost and (pattern_of(path), name) in read}


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
