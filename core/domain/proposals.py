"""What a scan answers for any PEFT method: its family's proposal, narrowed to what the method can adapt."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import MethodDoesNotFit, UnknownPreset, quoted
from .coverage import Blocks
from .methods import UNTARGETED, Method, get_family, get_method
from .patterns import name_targets
from .prompt_facts import PromptFacts
from .targets import TargetMatcher, TargetSpec, find_hits, without_exclusion
from .vocabulary import Kind

if TYPE_CHECKING:
    from .scans import Layer, Proposal, Scan


def answer(scan: "Scan", peft_type: str, preset: str) -> "Proposal":
    """Return the proposal of a scan for a PEFT method and preset.

    Raises:
        UnknownPeftType: If PEFT has no such method.
        UnknownPreset: If nothing is proposed for ``preset``.
        MethodDoesNotFit: If the method can adapt nothing of what would have to be adapted.
    """
    method = get_method(peft_type)
    base = _of_family(scan, method, preset)
    if base.peft_type == method.name or method.family in UNTARGETED:
        return base
    return _narrowed(scan, base, method)


def _of_family(scan: "Scan", method: Method, preset: str) -> "Proposal":
    name = scan.architecture.name
    if method.family in UNTARGETED:
        check_preset(scan.architecture.reference, preset, ["default"])
        any_proposal = scan.proposals[0] if scan.proposals else None
        if any_proposal is None:
            raise nothing_for(method, scan.architecture.reference, "it has no layer that is adapted at all")
        facts = explain_facts(method, name, scan.prompt_facts)
        named = replace(any_proposal, peft_type=method.name, preset="default", spec=TargetSpec(), reasons=facts)
        return replace(named, matched=0, per_rank=None, fixed=None, coverage=(), reached=0.0)
    found = {p.preset: p for p in scan.proposals if p.peft_type == method.family}
    if not found:
        raise nothing_for(method, scan.architecture.reference, f"no layer of it is one that {method.family} is for")
    check_preset(scan.architecture.reference, preset, found)
    return found[next(known for known in found if known == preset)]


def check_preset(reference: str, preset: str, known: Iterable[str]) -> None:
    """Raise ``UnknownPreset`` unless something is proposed for this preset."""
    names = list(known)
    if preset not in names:
        raise UnknownPreset(preset, names, f"{reference} has: {quoted(names)}.")


def nothing_for(method: Method, reference: str, why: str) -> MethodDoesNotFit:
    """Return the error for a method that has nothing to do in an architecture."""
    message = f"{method.name} cannot adapt {reference}: {why}. {method.family}: {get_family(method.family).says}."
    return MethodDoesNotFit(message, peft_type=method.name, reference=reference, why=why)


def explain_facts(method: Method, name: str, facts: PromptFacts) -> tuple[str, ...]:
    """Return what a method that names no layer needs to know of an architecture, as reasons.

    Raises:
        MethodDoesNotFit: If it takes only other model types, or a fact it needs is not known.
    """
    if method.only and name not in method.only:
        raise nothing_for(method, name, f"PEFT has it for {quoted(method.only)} alone")
    known = facts.to_dict()
    missing = [need for need in method.needs if known[need] is None]
    if missing:
        raise nothing_for(method, name, f"nothing tells its {quoted(missing)}")
    told = ", ".join(f"{need} = {known[need]}" for need in method.needs)
    notes = (method.note,) if method.note else ()
    return (f"{method.name} names no layers: {get_family(method.family).says}", f"its facts: {told}", *notes)


def _narrowed(scan: "Scan", base: "Proposal", method: Method) -> "Proposal":
    """Return the family's proposal for another method of it, without the layers that one cannot adapt."""
    hit = find_hits(base.spec, scan.layers)
    kept = [layer for layer in hit if method.fits(layer.kind, layer.groups)]
    left = Counter(layer.kind for layer in hit if not method.fits(layer.kind, layer.groups))
    if not kept:
        raise nothing_for(method, scan.architecture.reference, f"it adapts no {_listed(left)}")
    out = tuple(f"left out: {count} {kind} layers, which {method.name} cannot adapt" for kind, count in left.items())
    notes = (method.note,) if method.note else ()
    spec = _renamed(scan, base.spec, kept) if left else base.spec
    blocks = Blocks(scan.layers)
    is_alike = method.sized_alike and not left
    return replace(
        base,
        peft_type=method.name,
        spec=spec if method.exclusion else without_exclusion(spec),
        matched=len(kept),
        per_rank=base.per_rank if is_alike else None,
        fixed=base.fixed if is_alike else None,
        reasons=(method.shares, *out, *notes, *base.reasons),
        coverage=blocks.cover(kept),
        reached=blocks.share(kept),
    )


def _renamed(scan: "Scan", spec: TargetSpec, kept: list["Layer"]) -> TargetSpec:
    modules = [layer.path for layer in kept if layer.kind != "expert_parameter"]
    experts = TargetMatcher(spec.target_parameters or ())
    has_experts = any(experts.find(layer.path) for layer in kept if layer.kind == "expert_parameter")
    return replace(
        spec,
        target_modules=name_targets(modules, scan.module_paths) if modules else None,
        exclude_modules=None,
        target_parameters=spec.target_parameters if has_experts else None,
    )


def _listed(kinds: Iterable[Kind]) -> str:
    return " or ".join(sorted(kinds))
