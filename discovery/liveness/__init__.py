"""Prove layers live: put an adapter on each in a small real build, and see which receive a gradient.

Others may import: ``prove_any`` (proves on the first build that shows enough), ``apply_proof`` (layers with the
verdicts of a ``Proof``), ``recall_proof`` and ``proof_holds`` (a proof on record, taken over for a model built alike).
"""

from .proofs import Proof, Recall, apply_proof, proof_holds, prove, prove_any, recall_proof

__all__ = ["Proof", "Recall", "apply_proof", "proof_holds", "prove", "prove_any", "recall_proof"]
