"""Scan an unregistered architecture: find its layers, their roles, slots and proposals.

Others may import: ``scan`` (a model or reference), ``scan_module`` (a live module), ``scan_named``, ``scan_each`` and
``scan_library`` (one, some or all architectures of a library, as ``How`` and ``Compact`` set it; the latter two run
in the workers of a ``Runner``, for which see ``loradar.sandbox.Sandbox.run_each`` and its ``Bounds``),
``scan_config``, ``scan_configured`` and ``fetch_config`` (a ``config.json``), ``scan_listing`` (names and shapes),
``scan_stored`` (a model on a hub or in a folder), ``scan_files`` (parts of files that were sent), ``name_as_gguf``
(layers as llama.cpp names them), ``list_architectures``, ``build`` (the model of a reference, on meta), ``identify``,
the layer facts ``walk``,
``list_layers``, ``kind_of``, ``CONV_KINDS``; the layers an adapter fits, ``FITTING_KINDS``, ``find_misfit``,
``find_owner_misfit``, ``is_stack``, ``is_plain_conv``; ``why_not_exported`` (whether one entry serves a type);
``read_model`` (a model's own layers, a ``StaticModel``) and ``proof_holds`` (for such a model); ``check_unwrapped``,
``open_wrappers``, ``find_inner``, ``find_adapted``, ``is_compiled`` and ``read_attribute`` (for models of others:
wrapped, adapted, compiled); ``build_subject`` and ``build_repo`` (what a scan or a plan is for, as a module),
``copy_to_meta``, ``quantise`` and ``Rehearsal``, which gives a ``Usage`` (training steps on meta, with their memory).
"""

from ..domain.vocabulary import CONV_KINDS
from ..extras import require

require("scan", "torch")

from .catalog import Compact, How, Runner, scan_each, scan_library, scan_named
from .config_scan import build_repo, scan_config
from .dispatch import scan
from .facts.layers import Site, kind_of, list_layers, walk
from .facts.misfits import FITTING_KINDS, find_misfit, find_owner_misfit, is_plain_conv, is_stack
from .facts.model_facts import identify, read_attribute
from .facts.wrapped import check_unwrapped, find_adapted, find_inner, is_compiled, open_wrappers
from .gguf_scan import name_as_gguf
from .listing_scan import scan_listing
from .liveness import proof_holds
from .meta_run.kernels import quantise
from .meta_run.training import Rehearsal, Usage, copy_to_meta
from .scanner import StaticModel, build_subject, read_model, scan_module
from .sources import build, quiet_libraries
from .sources import list_names as list_architectures
from .sources.hub import fetch_config
from .sources.transformers import why_not_exported
from .stored_scan import scan_configured, scan_files, scan_stored

__all__ = [
    "CONV_KINDS",
    "FITTING_KINDS",
    "Compact",
    "How",
    "Rehearsal",
    "Runner",
    "Site",
    "StaticModel",
    "Usage",
    "build",
    "build_repo",
    "build_subject",
    "check_unwrapped",
    "copy_to_meta",
    "fetch_config",
    "find_adapted",
    "find_inner",
    "find_misfit",
    "find_owner_misfit",
    "identify",
    "is_compiled",
    "is_plain_conv",
    "is_stack",
    "kind_of",
    "list_architectures",
    "list_layers",
    "name_as_gguf",
    "open_wrappers",
    "proof_holds",
    "quantise",
    "quiet_libraries",
    "read_attribute",
    "read_model",
    "scan",
    "scan_config",
    "scan_configured",
    "scan_each",
    "scan_files",
    "scan_library",
    "scan_listing",
    "scan_module",
    "scan_named",
    "scan_stored",
    "walk",
    "why_not_exported",
]
