"""One stored mapping answers for every method of its family: fitted to the method asked for, or not at all."""

from dataclasses import replace

from ...domain.mappings import Mapping
from ...domain.methods import TARGETED, UNTARGETED, Method, explain_facts
from ...domain.targets import TargetSpec, without_exclusion
from ...errors import MethodDoesNotFit


def stored_under(method: Method) -> str:
    """Return the PEFT type whose mappings answer for a method beside its own."""
    return TARGETED if method.family in UNTARGETED else method.family


def fit(mapping: Mapping, method: Method) -> Mapping | None:
    """Return a mapping as the answer for a method of its family; ``None`` if that would be wrong for the method."""
    if method.family in UNTARGETED:
        return _facts_only(mapping, method)
    is_own = mapping.peft_type == method.name
    if is_own and method.name == method.family:
        return mapping
    spec, is_narrowed = _narrow(mapping, method)
    if spec is None or (is_own and is_narrowed):
        return None
    return mapping if is_own else _shared(mapping, method, spec, is_narrowed=is_narrowed)


def _facts_only(mapping: Mapping, method: Method) -> Mapping | None:
    """A method that names no layers is answered from a scan, whatever it hits."""
    if mapping.source.kind != "scanner" or mapping.prompt_facts is None:
        return None
    try:
        told = explain_facts(method, mapping.name, mapping.prompt_facts)
    except MethodDoesNotFit:
        return None
    return replace(
        mapping,
        peft_type=method.name,
        **TargetSpec().values,
        matched=0,
        formula=None,
        coverage=(),
        reasons=told,
        verification=None,
        versions=None,
    )


def _narrow(mapping: Mapping, method: Method) -> tuple[TargetSpec | None, bool]:
    """Return the part of a spec that a method can adapt, as far as it is known what each target hits."""
    counts = mapping.verification.counts if mapping.verification else {}
    misfits = {t for t, kinds in counts.items() if not all(kind == "module" or method.fits(kind) for kind in kinds)}
    spec = mapping.spec
    parameters = spec.target_parameters if method.parameters else None
    modules = spec.target_modules
    if isinstance(modules, str):
        modules = None if modules in misfits else modules
    elif modules is not None:
        modules = tuple(target for target in modules if target not in misfits) or None
    kept = replace(spec, target_modules=modules, target_parameters=parameters)
    kept = kept if method.exclusion else without_exclusion(kept)
    is_narrowed = modules != spec.target_modules or parameters != spec.target_parameters
    return (kept if modules or parameters else None), is_narrowed


def _shared(mapping: Mapping, method: Method, spec: TargetSpec, *, is_narrowed: bool) -> Mapping:
    notes = (method.note,) if method.note else ()
    left = (f"left out: what {method.name} cannot adapt",) if is_narrowed else ()
    is_alike = method.sized_alike and not is_narrowed
    answer = replace(
        mapping, peft_type=method.name, **spec.values, reasons=(method.shares, *left, *notes, *mapping.reasons)
    )
    if not is_alike:
        answer = replace(answer, formula=None)
    return replace(answer, matched=None, coverage=(), verification=None) if is_narrowed else answer
