"""Tell which layers of an adapter vLLM, SGLang and llama.cpp apply, ignore or reject (``data/serving``).

Others may import: ``list_engines``, ``get_engine``, ``assess`` (layers -> ``Served``) and ``find_outcomes`` (by layer).
"""

from .engines import Engine, Outcome, get_engine, list_engines
from .verdicts import Features, Served, assess, find_outcomes

__all__ = ["Engine", "Features", "Outcome", "Served", "assess", "find_outcomes", "get_engine", "list_engines"]
