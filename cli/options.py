"""Options and arguments that several commands share."""

from typing import Annotated, Any

import typer

from ..domain.vocabulary import PRESETS
from ..errors import InvalidRequest
from ..references import LIBRARIES, SCHEMES
from ..validation.text import RATIONALE_LENGTH, explain_invalid_text

TOKEN_VARIABLE = "LORADAR_TOKEN"  # noqa: S105 - the name of a variable, not a secret

LARGEST = 2**31 - 1
"""The largest integer that every database stores."""


def _check_reason(text: str) -> str:
    """Return a reason if it is readable: not blank, not too long, and without hidden characters."""
    fault = explain_invalid_text(text)
    if not text.strip() or len(text) > RATIONALE_LENGTH:
        fault = f"Give a reason of 1 to {RATIONALE_LENGTH:,} characters; this one has {len(text.strip()):,}."
    if fault:
        raise InvalidRequest(fault)
    return text


def spell_out(text: str) -> str:
    """Return the reference that a text in another spelling stands for, and report on standard error how it was read.

    What is not known, or would be a guess, is returned as it is: the command says what is wrong with it.
    """
    from ..references.resolver import resolve

    has_scheme = text.partition(":")[0] in set(SCHEMES) - set(LIBRARIES)
    first = None if has_scheme else next(iter(resolve(text)), None)
    if first is None or first.is_guess or text in {first.reference, first.reference.removeprefix("transformers:")}:
        return text
    reference = first.reference + (f".{first.tag}" if first.tag else "")
    if text != reference:
        typer.echo(f"{text!r} is {reference}: {first.explain()}.", err=True)
    return reference


def keep_given(**options: Any) -> dict[str, Any]:
    """Return the options that are given, by name."""
    return {name: value for name, value in options.items() if value is not None}


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[str | None, typer.Option(help="Use a loradar service instead of the local registry.")]
Secret = Annotated[
    str | None,
    typer.Option("--token", envvar=TOKEN_VARIABLE, help="Your token. Other users of the machine can see the option."),
]
IfMatch = Annotated[int | None, typer.Option(min=1, max=LARGEST, help="Only if this is still its version.")]
Reason = Annotated[str, typer.Option(callback=_check_reason, help="The reason; it is kept in the history.")]
Number = Annotated[int, typer.Argument(metavar="ID", min=1, max=LARGEST, help="Its number.")]
ReferenceText = Annotated[str, typer.Argument(metavar="REFERENCE", help="llama, timm:resnet50")]
ReferenceTexts = Annotated[
    list[str],
    typer.Argument(metavar="REFERENCE", help="llama, timm:resnet50, LlamaForCausalLM, Qwen/Qwen3-8B, sdxl"),
]
MappingId = Annotated[str, typer.Argument(metavar="ID", help="Id of a mapping, or its first eight digits.")]

PeftType = Annotated[str, typer.Option(help="PEFT method: LORA, IA3, ...")]
Preset = Annotated[
    str | None,
    typer.Option(
        help="One of " + ", ".join(PRESETS) + "; LORADAR_PRESET or default if not given.",
        autocompletion=lambda: [*PRESETS],
    ),
]

# What a selection has beside its preset: the names are those of ``SELECTING``.
Towers = Annotated[str | None, typer.Option(help="Towers to adapt: vision,projector, or all.")]
Roles = Annotated[str | None, typer.Option(help="Roles to adapt: attention.*,mlp.down.")]
Blocks = Annotated[str | None, typer.Option(help="Blocks of each stack: 'last 8', 'first 4', 'every 2', 10-20.")]
Rank = Annotated[int | None, typer.Option(help="Rank of LoRA that sizes are stated for; 8 if not given.")]
Parts = Annotated[
    list[str] | None,
    typer.Option("--part", metavar="NAME=TYPE", help="Another model in a composite one: text=t5. Can be repeated."),
]
ExpertRank = Annotated[str | None, typer.Option(help="Rank of routed experts: auto, shared or a number.")]
Budget = Annotated[str | None, typer.Option(help="Parameters to train at most: 20M, 0.5%. It decides the rank.")]
Servable = Annotated[str | None, typer.Option(help="Only layers whose adapters vllm, sglang or llama_cpp applies.")]
