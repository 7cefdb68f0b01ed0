"""``loradar explain`` and ``open``: why a layer is a target or not; the page of an architecture in the browser."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..domain.methods import TARGETED
from ..domain.vocabulary import count_layers, list_some
from ..references import LIBRARIES, SCHEMES, Reference
from ..schema import to_json
from ..settings import URL_VARIABLE
from .options import AsJson, ReferenceText, Url, spell_out
from .output import print_json, print_rows

if TYPE_CHECKING:
    from ..domain.explaining.explanations import Explanation, LayerExplanation
    from .output import Row

MOST_IN_FULL = 3
"""Kinds of layers that are described in full; of more, each has one row."""
LONGEST_TARGET = 60
FOUND = {
    "path": "",
    "pattern": "",
    "deeper path": "beyond the scanned depth, so told by the layers of its pattern",
    "name": "the end of these paths",
    "module": "a module with these layers inside",
}


def explain(
    reference: ReferenceText,
    layer: Annotated[
        str, typer.Argument(metavar="LAYER", help="q_proj, model.layers.3.mlp, model.layers.*.mlp.down_proj")
    ],
    *,
    scan: Annotated[bool, typer.Option("--scan", help="Scan it now, for the evidence of each role.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Explain why a layer is a target or not: its role and the evidence, the presets, and reasons against."""
    if url and scan:
        from ..errors import InvalidRequest

        raise InvalidRequest("--scan scans here, and --url asks a service: give one of them.")
    found = _ask_service(url, reference, layer) if url else _explain_here(reference, layer, is_scanned=scan)
    print_json(to_json(found)) if as_json else print_explanation(found)


def _ask_service(url: str, reference: str, layer: str) -> "Explanation":
    from ..client import Client

    parsed = Reference.parse(spell_out(reference))
    with Client(url) as client:
        return client.explain(parsed.scheme, parsed.registered_name, layer)


def _explain_here(reference: str, layer: str, *, is_scanned: bool) -> "Explanation":
    """Explain a layer from the registry, or from a scan of a model that is not for it."""
    from ..registry import explain as explain_layer

    scheme, _, name = reference.partition(":")
    is_elsewhere = scheme in set(SCHEMES) - set(LIBRARIES) and (scheme != "torch" or ":" in name)
    if not (is_scanned or is_elsewhere):
        return explain_layer(reference, layer)
    from ..discovery import quiet_libraries
    from ..discovery import scan as scan_reference

    quiet_libraries()
    sys.path.append(os.getcwd())  # noqa: PTH109 - a path entry is a string; `torch:module:Class` may be right here
    return explain_layer(scan_reference(spell_out(reference)), layer)


def print_explanation(found: "Explanation") -> None:
    """Print the role, the evidence and the presets of a kind of layer; of many kinds, a row of each."""
    version = f" {found.library_version}" if found.library_version else ""
    how = f" · {FOUND[found.found_as]}" if FOUND[found.found_as] else ""
    typer.echo(f"{found.reference}{version} · {found.given}{how}")
    if len(found.layers) > MOST_IN_FULL:
        print_rows([(one.pattern, describe_in_short(one)) for one in found.layers])
    for one in found.layers if len(found.layers) <= MOST_IN_FULL else ():
        typer.echo(f"\n{one.pattern if one.count > 1 else one.path}")
        print_rows(describe_layer(one))
    if found.more:
        typer.echo(f"  and {found.more} more kinds of layers: name one of them")


def describe_in_short(one: "LayerExplanation") -> str:
    """Return the role and the presets of a kind of layer in one line, or why none adapts it."""
    lora = [choice for choice in one.choices if choice.peft_type == TARGETED]
    taken = [choice.preset for choice in lora if choice.target]
    why = f"no target: {lora[0].why}" if lora else "no target"
    return f"{one.role}, {count_layers(one.count)}; {f'target of {list_some(taken, len(taken))}' if taken else why}"


def describe_layer(one: "LayerExplanation") -> "list[Row]":
    """Return the facts of a kind of layer, as rows."""
    count = f", {one.count} layers" if one.count > 1 else ""
    rows = [("layer", f"{one.kind} in the {one.tower} tower{count}"), ("role", f"{one.role} (by {one.role_from})")]
    rows += [("evidence", f"{evidence.by}: {evidence.says}") for evidence in one.evidence]
    rows.append(("target", "yes" if one.is_target else "no, by no preset of LoRA"))
    taken, others, whys = _group(one)
    rows += [("taken by", f"{list_some(presets, len(presets))}: {how}") for how, presets in taken.items()]
    rows += [("", f"{list_some(methods, 8)}: {how}") for how, methods in others.items()]
    rows += [("left out", f"{list_some(presets, len(presets))}: {why}") for why, presets in whys.items()]
    rows += [("saved", "trained in full and saved with the adapter (modules_to_save)")] if one.saved else []
    return rows


def _group(one: "LayerExplanation") -> tuple[dict[str, list[str]], ...]:
    """Return the presets of LoRA by the target that takes it, other methods likewise, and the presets by the reason."""
    taken: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    whys: dict[str, list[str]] = {}
    for choice in one.choices:
        shown = choice.target if choice.target and len(choice.target) <= LONGEST_TARGET else "a regex"
        by = f"{shown} ({choice.source})"
        if choice.peft_type != TARGETED:
            others.setdefault(by, []).append(choice.peft_type)
        elif choice.target:
            taken.setdefault(by, []).append(choice.preset)
        else:
            whys.setdefault(choice.why, []).append(choice.preset)
    return taken, others, whys


def open_page(
    reference: ReferenceText,
    *,
    url: Annotated[
        str | None,
        typer.Option(envvar=URL_VARIABLE, help="Service whose page is opened; one is started here if not given."),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open it, or print its address alone.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Open the page of an architecture in the browser, of a service or of one that is started here until Ctrl-C."""
    parsed = Reference.parse(spell_out(reference))
    from urllib.parse import quote

    path = f"/architectures/{parsed.scheme}/{quote(parsed.registered_name, safe='')}"
    if url:
        _show(url.rstrip("/") + path, is_opened=browser, as_json=as_json)
        return
    from ..api import serve
    from ..settings import Settings

    serve(
        Settings.from_environment(),
        "127.0.0.1",
        0,
        lambda base: _show(base + path, is_opened=browser, as_json=as_json),
    )


def _show(address: str, *, is_opened: bool, as_json: bool) -> None:
    print_json({"url": address}) if as_json else typer.echo(address)
    if is_opened:
        typer.launch(address)
