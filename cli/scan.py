"""``loradar scan``, ``plan`` and ``doctor``: scan architectures, plan training memory, examine a saved adapter."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..domain.architectures import name_make_up
from ..domain.methods import get_method
from ..domain.vocabulary import PRESETS, describe_bytes, describe_slot
from ..errors import DatabaseUnusable, InvalidRequest, UnknownPreset, quoted
from ..references import parse_parts
from ..schema import to_json
from .options import AsJson, Blocks, Budget, ExpertRank, Parts, Rank, Roles, Servable, Towers, keep_given, spell_out
from .output import (
    describe_coverage,
    describe_ranks,
    describe_served,
    describe_size,
    describe_spec,
    print_heading,
    print_json,
    print_rows,
    print_table,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..adapters import MemoryPlan
    from ..domain.architectures import Architecture, StoredFacts
    from ..domain.layers import Slot
    from ..domain.scans import Scan
    from ..weights.diagnoses import Diagnosis
    from .output import Row

METHODS = ("auto", "dataflow", "names")
"""How roles are found."""
LIVENESS = {True: "live", False: "dead", None: "unproven"}
"""Names of the values of ``Slot.live``."""


Scanned = Annotated[
    str | None,
    typer.Argument(
        metavar="REFERENCE", help="llama, timm:resnet50, hub:org/repo, file:PATH, torch:package.module:Class"
    ),
]
Proved = Annotated[
    bool, typer.Option("--prove", help="Prove each layer live on a small real build, and leave out the dead ones.")
]


def scan(
    reference: Scanned = None,
    *,
    store: Annotated[bool, typer.Option("--store", help="Store the result in the registry.")] = False,
    method: Annotated[str, typer.Option(help="auto, dataflow or names.")] = "auto",
    prove: Proved = False,
    every: Annotated[str | None, typer.Option("--all", metavar="LIBRARY", help="Scan a whole library.")] = None,
    out: Annotated[Path | None, typer.Option(help="File that --all writes: one JSON line per architecture.")] = None,
    compact: Annotated[bool, typer.Option("--compact", help="--all writes slots, not every layer.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes for --all; one per core if not given.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Time limit of --all for one architecture; 120.")] = None,
    memory: Annotated[float | None, typer.Option(help="Memory limit of --all for one worker, in GiB; 8.")] = None,
    part: Parts = None,
    peft_type: Annotated[str | None, typer.Option(help="Print the proposal for this method alone.")] = None,
    preset: Annotated[str | None, typer.Option(help="Print the proposal of this preset alone.")] = None,
    towers: Towers = None,
    roles: Roles = None,
    blocks: Blocks = None,
    rank: Rank = None,
    expert_rank: ExpertRank = None,
    budget: Budget = None,
    servable: Servable = None,
    as_json: AsJson = False,
) -> None:
    """Scan an architecture: print its layers, roles, slots and proposed targets.

    On a terminal the modules are a folded tree, with the targets of the first proposal marked.
    """
    wanted = keep_given(towers=towers, roles=roles, blocks=blocks, rank=rank, expert_rank=expert_rank, budget=budget)
    wanted |= keep_given(servable=servable, peft_type=peft_type, preset=preset)
    _check_words(method, preset, peft_type)
    how, bounds = {"method": method, "proved": prove}, keep_given(seconds=seconds, memory=memory, workers=workers)
    if every is not None:
        if out is None or store or wanted or part or reference is not None:
            message = "--all takes --out and neither a reference nor --store nor a selection: "
            raise InvalidRequest(f"{message}loradar scan --all timm --out timm.jsonl", library=every)
        _scan_all(every, out, how, bounds, compact=compact, as_json=as_json)
    elif out or compact or bounds:
        message = "--out, --compact, --workers, --seconds and --memory are for --all"
        raise InvalidRequest(f"{message}: loradar scan --all timm --out FILE")
    elif reference is None:
        message = "Nothing to scan. Name an architecture (loradar scan olmo2) or a library (--all timm --out FILE)."
        raise InvalidRequest(message)
    else:
        _scan_one(reference, part or (), how, wanted, store=store, as_json=as_json)


def _check_words(method: str, preset: str | None, peft_type: str | None) -> None:
    """Check the words of a scan before its libraries are loaded, which takes seconds.

    Raises:
        InvalidRequest: If there is no such way to find roles.
        UnknownPreset: If there is no such preset.
        UnknownPeftType: If PEFT has no such method.
    """
    if method not in METHODS:
        raise InvalidRequest(f"Unknown method {method!r}. Methods: {quoted(METHODS)}.", method=method)
    if preset is not None and preset not in PRESETS:
        raise UnknownPreset(preset, PRESETS, f"Presets: {quoted(PRESETS)}.")
    if peft_type is not None:
        get_method(peft_type)


def _scan_one(
    spelt: str,
    part: "Sequence[str]",
    how: "dict[str, Any]",
    wanted: "dict[str, Any]",
    *,
    store: bool,
    as_json: bool,
) -> None:
    from ..discovery import quiet_libraries
    from ..discovery import scan as scan_reference

    parts, reference = parse_parts(part), spell_out(spelt)
    reference = name_make_up(reference, parts) if parts else reference
    quiet_libraries()
    sys.path.append(os.getcwd())  # noqa: PTH109 - a path entry is a string; `torch:module:Class` may be right here
    result = scan_reference(reference, **how)
    if store and result.stored and result.stored.verdict:
        known = result.architecture.reference
        message = f"--store keeps architectures, and {reference} is a checkpoint of one: loradar scan {known} --store"
        raise InvalidRequest(message, reference=reference)
    shown = replace(result, proposals=(result.propose(**wanted),)) if wanted else result
    if as_json:
        print_json(to_json(shown))
    else:
        print_scan(shown)
        _print_same_structure(result.architecture)
    if store:
        from ..registry import Registry

        with Registry.open() as registry:
            report = registry.add_scan(result)
        if not as_json:
            stored = f"{len(report.added)} new revisions, {len(report.unchanged)} unchanged"
            typer.echo(
                f"\nStored: {stored}, {len(report.extended)} known from other versions. "
                f"Look it up with: loradar lookup {result.architecture.reference}"
            )


def plan(
    reference: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="llama, timm:resnet50, hub:org/repo, torch:package.module:Class")
    ],
    *,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Memory of the device: 24GB, 24GiB.")] = None,
    batch: Annotated[int, typer.Option(help="Samples of a step.")] = 1,
    length: Annotated[int | None, typer.Option(help="Tokens; 2048, or as many as the model takes.")] = None,
    dtype: Annotated[str, typer.Option(help="bf16, fp16 or fp32.")] = "bf16",
    quantize: Annotated[str | None, typer.Option(help="nf4 or int8: linears as bitsandbytes packs them.")] = None,
    checkpointing: Annotated[bool, typer.Option("--checkpointing", help="Keep only the inputs of blocks.")] = False,
    optimizer: Annotated[str, typer.Option(help="adamw, adamw8bit or sgd.")] = "adamw",
    preset: Annotated[list[str] | None, typer.Option(help="Only this preset. Can be repeated.")] = None,
    rank: Annotated[list[int] | None, typer.Option(help="Only this rank. Can be repeated.")] = None,
    device: Annotated[str, typer.Option(help="cuda, or cpu, which has other kernels.")] = "cuda",
    as_json: AsJson = False,
) -> None:
    """State the memory that training an adapter takes, by preset and rank, and the largest choice that fits."""
    from ..adapters import plan as plan_memory
    from ..discovery import quiet_libraries

    quiet_libraries()
    sys.path.append(os.getcwd())  # noqa: PTH109 - as above
    setting: dict[str, Any] = {"batch": batch, "length": length, "dtype": dtype, "quantize": quantize}
    setting |= {"checkpointing": checkpointing, "optimizer": optimizer, "device": device}
    result = plan_memory(spell_out(reference), memory, presets=preset, ranks=rank, **setting)
    if as_json:
        print_json(to_json(result))
    else:
        print_plan(result)


def print_plan(planned: "MemoryPlan") -> None:
    """Print a table of the choices, the one that fits, and what the figures rest on."""
    from rich.table import Table

    typer.echo(f"{planned.reference} · {planned.class_name}")
    table = Table("preset", "rank", "trains", "file", "peak", "needed", "fits")
    for column in table.columns[1:-1]:
        column.justify = "right"
    names = {True: "yes", False: "no", None: ""}
    for choice in planned.choices:
        sizes = map(describe_bytes, (choice.file, choice.peak, choice.needed))
        table.add_row(choice.preset, str(choice.rank), f"{choice.parameters:,}", *sizes, names[choice.fits])
    print_table(table)
    base = planned.choices[0].base
    rows = [("model", f"{describe_bytes(base)} of weights"), ("result", planned.says)]
    print_rows([*rows, *(("assumed", line) for line in planned.assumed)])


def print_scan(scan: "Scan") -> None:
    """Print the towers, layers and proposals of a scan, each proposal with its reasons.

    On a terminal the layers are a tree of modules, with the targets of the first proposal marked; else a table. Reasons
    leave out what the tree shows: the role of each target.
    """
    by = scan.method
    if scan.method != "names" and scan.untraced:
        by = f"{scan.method}, {' and '.join(scan.untraced)} by names"
    typer.echo(f"{scan.architecture.reference} · {scan.architecture.class_name} · by {by}")
    print_rows([(tower, ", ".join(p or "(root)" for p in paths)) for tower, paths in scan.towers.items() if paths])
    print_rows([("proof", scan.proof)] if scan.proof else [])
    print_rows(_describe_stored(scan.stored) if scan.stored else [])
    _print_facts(scan.slots)
    _print_layers(scan)
    slots = scan.slots if sys.stdout.isatty() else ()
    drawn = tuple(describe_slot(slot.pattern, slot.role, 1).removesuffix("1 layer)") for slot in slots)
    for proposal in scan.proposals:
        print_heading(
            f"{proposal.peft_type} {proposal.preset}: {proposal.matched} layers, {describe_size(proposal)}, "
            f"{proposal.reached:.1%} of the blocks"
        )
        reasons = [("reason", reason) for reason in proposal.reasons if not reason.startswith(drawn)]
        rows = [*describe_spec(proposal.spec), *describe_ranks(proposal), *describe_coverage(proposal.coverage)]
        print_rows([*rows, *reasons])


def _describe_stored(stored: "StoredFacts") -> "list[Row]":
    """Return what was read of a stored model, and how it fits the architecture, as rows."""
    read = f"{stored.tensors} tensors in {stored.files} files; {stored.headers} headers were read"
    read += f", {describe_bytes(stored.transferred)} from the hub" if stored.transferred else ""
    rows: list[Row] = [("stored", read), *(("packed", text) for text in stored.packed)]
    rows += [("note", text) for text in stored.notes]
    rows += [("verdict", stored.verdict)] if stored.verdict else []
    for name in ("renames", "missing", "beyond", "shapes"):
        patterns: tuple[str, ...] = getattr(stored, name)
        rows += (
            [(name, "; ".join((*patterns[:8], *([f"and {len(patterns) - 8} more"] if patterns[8:] else []))))]
            if patterns
            else []
        )
    return rows


def _print_facts(slots: "Sequence[Slot]") -> None:
    """Print how layers are run and proved."""
    named = [(f"{slot.count} {slot.pattern}", slot) for slot in slots]
    reached = [(name, slot) for name, slot in named if not slot.bypassed]
    print_rows([("bypassed", f"{name}: read at {slot.bypassed}") for name, slot in named if slot.bypassed])
    print_rows([("kernel", f"{name}: {slot.kernel}") for name, slot in reached if slot.kernel])
    print_rows([(LIVENESS[slot.live], f"{name}: {slot.proof}") for name, slot in reached if slot.proof])


def _print_layers(scan: "Scan") -> None:
    """Print a tree of the modules on a terminal; else a table of the slots without the norms."""
    from rich.table import Table

    if sys.stdout.isatty():
        from .output.scan_tree import print_scan_tree

        print_scan_tree(scan, scan.proposals[0] if scan.proposals else None)
        return
    table = Table("role", "layers", "kind", "tower", "layout", title="Slots", title_justify="left")
    table.add_column("pattern", overflow="fold")
    for slot in scan.slots:
        if slot.role != "norm":
            table.add_row(slot.role, str(slot.count), slot.kind, slot.tower, slot.layout or "", slot.pattern)
    print_table(table)


def _print_same_structure(architecture: "Architecture") -> None:
    """Name registered architectures of the same structure, if this one is not registered."""
    from ..registry import Registry

    try:
        with Registry.open() as registry:
            if registry.find(architecture.name, library=architecture.library) is not None:
                return
            others = registry.list_alike(architecture)
    except DatabaseUnusable as error:
        typer.echo(f"\nThe registry is unavailable: {error.message}", err=True)
        return
    for has_same_names, names in ((True, "the same names"), (False, "other names")):
        same = [o.reference for o in others if (o.fingerprint == architecture.fingerprint) is has_same_names]
        if same:
            more = f" and {len(same) - 1} more" if same[1:] else ""
            typer.echo(f"\nNot registered, but built like {same[0]}{more}: the same layers under {names}.")


def _scan_all(
    library: str, out: Path, how: "dict[str, Any]", bounds: "dict[str, Any]", *, compact: bool, as_json: bool
) -> None:
    from ..discovery import Compact, How, list_architectures, quiet_libraries, scan_library
    from ..registry import catalog_entry, catalog_header
    from ..sandbox import Bounds, Sandbox

    quiet_libraries()
    limits = Bounds(**bounds)
    list_architectures(library)  # reports an unknown or missing library before anything else
    form = Compact(catalog_header(library), catalog_entry) if compact else None
    with Sandbox(limits, nice=0) as sandbox:
        scanned, failed = scan_library(library, out, sandbox.run_each, how=How(**how), compact=form)
    if as_json:
        print_json({"file": str(out), "scanned": scanned, "unscanned": failed})
    else:
        typer.echo(f"{out}: {scanned} architectures scanned, {failed} not, each with its reason.")


def doctor(
    adapter: Annotated[
        str, typer.Argument(metavar="ADAPTER", help="Its folder, its .safetensors file, or hub:org/repo.")
    ],
    *,
    model: Annotated[
        str | None,
        typer.Option(help="Folder of the base model, hub:org/repo, or llama; by default that in the configuration."),
    ] = None,
    fix: Annotated[Path | None, typer.Option(metavar="OUT", help="Folder to write a mended copy into.")] = None,
    to: Annotated[str | None, typer.Option(help="Convert to peft, diffusers, kohya or comfyui; needs --out.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder, or .safetensors file, that --to writes.")] = None,
    as_json: AsJson = False,
) -> None:
    """Examine a saved adapter: does it fit its model, load and change anything? Exit code 1 if not. Or convert it."""
    from ..adapters.doctor import convert
    from ..adapters.doctor import doctor as examine
    from ..discovery import quiet_libraries

    quiet_libraries()
    if to is not None or out is not None:
        if to is None or out is None or fix is not None:
            example = "loradar doctor ADAPTER --model BASE --to kohya --out OUT"
            raise InvalidRequest(f"--to takes --out, and --fix is another copy: {example}")
        _print_files(adapter, to, convert(adapter, to, out, model), as_json=as_json)
        return
    found = examine(adapter, model, fix=fix)
    if as_json:
        print_json({**to_json(found), "is_sound": found.is_sound, "fixed": str(fix) if fix else None})
    else:
        print_diagnosis(found)
        if fix:
            typer.echo(f"\nWrote {fix}. Examine it with: loradar doctor {fix}{f' --model {model}' if model else ''}")
    if not found.is_sound:
        sys.exit(1)


def _print_files(adapter: str, to: str, files: "Sequence[Path]", *, as_json: bool) -> None:
    if as_json:
        print_json({"adapter": adapter, "format": to, "files": [str(file) for file in files]})
        return
    for file in files:
        typer.echo(f"Wrote {file}.")


def print_diagnosis(found: "Diagnosis") -> None:
    """Print what an adapter holds, where it lands, and each finding with the way out."""
    typer.echo(f"{found.adapter} · {found.format} · {found.base or 'no base model'}")
    rows: list[Row] = []
    if found.layers:
        towers = ", ".join(f"{count} {tower}" for tower, count in found.towers.items())
        landed = f"{found.landed} of {found.layers} land" if found.base else f"{found.layers}"
        rows.append(("layers", f"{landed}{f': {towers}' if towers else ''}"))
    rows += [("note", found.note)] if found.note else []
    for finding in found.findings:
        rows += [(finding.level, finding.message), ("", f"-> {finding.way_out}")]
    rows += [] if found.findings else [("sound", "nothing was found")]
    print_rows([*rows, *describe_served(found.served)])
