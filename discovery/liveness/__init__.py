"""Liveness: an adapter on every layer of a small real build, one forward and one backward, and what came of it."""

from .proofs import Proof, apply_proof, prove, prove_any
from .real_builds import Builds, list_builds
from .recalled import Recall, proof_holds, recall_proof

__all__ = [
    "Builds",
    "Proof",
    "Recall",
    "apply_proof",
    "list_builds",
    "proof_holds",
    "prove",
    "prove_any",
    "recall_proof",
]
