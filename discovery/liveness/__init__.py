"""Liveness: an adapter on every layer of a small real build, one forward and one backward, and what came of it."""

from .prove import Proof, apply_proof, prove

__all__ = ["Proof", "apply_proof", "prove"]
