"""The tools of ``loradar mcp``: agents look up, scan, explain, check and plan by the Model Context Protocol.

Each tool calls the function of its command; its docstring and annotations are what agents read. Models are built in a
worker process, by their name or configuration alone: no tool runs code that a text names.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cached_property, wraps
from typing import Annotated, Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import ToolAnnotations
from pydantic import Field

from .. import __version__
from ..domain.vocabulary import PRESETS
from ..errors import InvalidReference, InvalidRequest, LoradarError, quoted
from ..lookups import lookup
from ..references import Reference
from ..registry import Registry, check_text, explain
from ..sandbox import Bounds, Sandbox
from ..sandbox.tasks import LISTABLE
from ..schema import to_json
from .options import keep_given, spell_out

INSTRUCTIONS = """\
loradar knows which layers of a model an adapter (LoRA and PEFT's other methods) belongs on. Look an architecture up
first; scan what is not registered. Take target_modules from the answer as they are: guessed names match nothing in many
architectures. Before a training, check its configuration and plan its memory. Without a network all but hub:org/repo
works."""

SCAN = "loradar.sandbox.tasks:scan_request"
PLAN = "loradar.adapters.memory:plan_sent"
"""Named, not imported: they import torch, in the worker."""

BUILDABLE = ("hub", *LISTABLE)
"""Schemes of references whose models are built; others stand for any code or file."""

Architecture = Annotated[
    str, Field(description="An architecture in any spelling: llama, LlamaForCausalLM, Qwen/Qwen3-8B, timm:resnet50")
]
Buildable = Annotated[str, Field(description="llama, timm:resnet50, diffusers:FluxTransformer2DModel, hub:org/repo")]
PresetName = Annotated[str | None, Field(description=f"One of {', '.join(PRESETS)}; default if not given")]


class AgentTools:
    """The tools, with the worker process that scans and plans run in, which the first of them starts."""

    @cached_property
    def _sandbox(self) -> Sandbox:
        return Sandbox(Bounds(workers=1))

    def close(self) -> None:
        """End the worker, if one was started."""
        if "_sandbox" in vars(self):
            self._sandbox.close()

    def lookup(  # noqa: PLR0917 - called by name alone
        self,
        reference: Architecture,
        peft_type: Annotated[str, Field(description="Method of PEFT: LORA, IA3, ...")] = "LORA",
        preset: PresetName = None,
        library_version: Annotated[str | None, Field(description="Version of its library; the newest one seen")] = None,
        parts: Annotated[dict[str, str] | None, Field(description='Models in a composite one: {"text": "t5"}')] = None,
        towers: Annotated[str | None, Field(description="Towers to adapt: vision,projector, or all")] = None,
        roles: Annotated[str | None, Field(description="Roles to adapt: attention.*,mlp.down")] = None,
        blocks: Annotated[
            str | None, Field(description="Blocks of each stack: last 8, first 4, every 2, 10-20")
        ] = None,
        rank: Annotated[int | None, Field(description="Rank that sizes are stated for; 8 if not given")] = None,
        expert_rank: Annotated[
            str | None, Field(description="Rank of routed experts: auto, shared or a number")
        ] = None,
        budget: Annotated[str | None, Field(description="Parameters to train at most: 20M, 0.5%")] = None,
        servable: Annotated[
            str | None, Field(description="Only layers whose adapters vllm, sglang or llama_cpp applies")
        ] = None,
    ) -> dict[str, Any]:
        """Look up the layers of a registered architecture that an adapter belongs on.

        The answer has the arguments of a PEFT configuration (target_modules, modules_to_save ...), the source, how much
        of the model they reach, the parameters that are trained, and how the reference was understood.
        """
        choice = keep_given(towers=towers, roles=roles, blocks=blocks, rank=rank, expert_rank=expert_rank)
        choice |= keep_given(budget=budget, servable=servable)
        return to_json(lookup(reference, peft_type, preset, None, library_version, parts, **choice))

    def scan(
        self,
        reference: Annotated[
            str | None, Field(description="timm:resnet50, or hub:org/repo, whose configuration is fetched")
        ] = None,
        config: Annotated[
            dict[str, Any] | None, Field(description="The content of the config.json of a transformers model")
        ] = None,
    ) -> dict[str, Any]:
        """Scan a model, also one that nobody registered: what its layers do, and the targets proposed for each method.

        Give its config, or a reference. It is built without weights, in a process with limits of time and memory, and
        its forward is traced; code that a configuration names is never loaded. The answer has the kinds of layers
        ('slots'), and only the number of single ones.
        """
        if (reference is None) == (config is None):
            message = "Give 'config', the content of a config.json, or 'reference': one of them."
            raise InvalidRequest(message, given=[reference, config])
        sent = {"config": config} if reference is None else {"reference": _name_buildable(reference)}
        scanned: dict[str, Any] = json.loads(self._sandbox.run(SCAN, json.dumps(sent).encode()))
        return {**scanned, "layers": len(scanned["layers"])}

    def explain(
        self,
        reference: Architecture,
        layer: Annotated[str, Field(description="q_proj, model.layers.3.mlp, model.layers.*.mlp.down_proj")],
    ) -> dict[str, Any]:
        """Explain why a layer of a registered architecture is a target or not.

        The answer has its role and the evidence for it, which presets take it, and what speaks against it.
        """
        return to_json(explain(reference, layer))

    def check(
        self,
        text: Annotated[str, Field(description="The content of the configuration")],
        name: Annotated[
            str, Field(description="The name of its file, whose ending tells the form: .yml, .json, .py, .sh")
        ] = "config.yml",
        model: Annotated[str | None, Field(description="Its model; by default the one that it names")] = None,
    ) -> dict[str, Any]:
        """Check the LoRA part of a training configuration against the layers of its model, before it is run.

        It may be one of axolotl, LLaMA-Factory, ms-swift, TRL, Unsloth, torchtune or diffusers, or a LoraConfig. The
        answer has findings with their lines and ways out, and targets without the faults. Nothing of it is run.
        """
        with Registry.open() as registry:
            return to_json(check_text(registry, text, name, model))

    def plan(  # noqa: PLR0917 - called by name alone
        self,
        reference: Buildable,
        memory: Annotated[str | None, Field(description="Memory of the device: 24GB, 24GiB")] = None,
        batch: Annotated[int, Field(description="Samples of a step")] = 1,
        length: Annotated[int | None, Field(description="Tokens; 2048, or as many as the model takes")] = None,
        dtype: Annotated[str, Field(description="bf16, fp16 or fp32")] = "bf16",
        quantize: Annotated[str | None, Field(description="nf4 or int8")] = None,
        checkpointing: Annotated[bool, Field(description="Keep only the inputs of blocks")] = False,  # noqa: FBT002
        optimizer: Annotated[str, Field(description="adamw, adamw8bit or sgd")] = "adamw",
        presets: Annotated[list[str] | None, Field(description="Only these presets")] = None,
        ranks: Annotated[list[int] | None, Field(description="Only these ranks")] = None,
        device: Annotated[str, Field(description="cuda, or cpu, which has other kernels")] = "cuda",
    ) -> dict[str, Any]:
        """State the memory that training LoRA takes, for each preset and rank, and the largest choice that fits.

        No weights and no GPU are needed: a step runs on the shapes alone, and every tensor is counted.
        """
        setting: dict[str, Any] = {"batch": batch, "length": length, "dtype": dtype, "quantize": quantize}
        setting |= {"checkpointing": checkpointing, "optimizer": optimizer, "device": device}
        sent = {"memory": memory, "presets": presets, "ranks": ranks, **setting}
        planned: dict[str, Any] = json.loads(self._sandbox.run(PLAN, _name_buildable(reference), sent))
        return planned


def _name_buildable(reference: str) -> str:
    """Return a reference as it is written in full, if its model may be built.

    Raises:
        InvalidReference: If it stands for code or a file.
    """
    parsed = Reference.parse(spell_out(reference))
    if parsed.scheme not in BUILDABLE:
        message = f"{parsed} is not built for agents: it may be any code or file. Schemes: {quoted(BUILDABLE)}. "
        message += f"The user may run: loradar scan {parsed}"
        raise InvalidReference(message, reference=str(parsed), schemes=list(BUILDABLE))
    return str(parsed)


def make_server() -> MCPServer[None]:
    """Return the server of the tools."""
    tools = AgentTools()

    @asynccontextmanager
    async def close_at_end(_: object) -> AsyncIterator[None]:
        try:
            yield
        finally:
            tools.close()

    return MCPServer(
        "loradar",
        version=__version__,
        instructions=INSTRUCTIONS,
        tools=[_make_tool(each) for each in (tools.lookup, tools.scan, tools.explain, tools.check, tools.plan)],
        lifespan=close_at_end,
        log_level="WARNING",
    )


def _make_tool(function: Callable[..., dict[str, Any]]) -> Tool:
    """Make a tool of a function: its errors are the answer of the tool, and arguments that it does not have too."""

    @wraps(function)
    def answer(**arguments: Any) -> dict[str, Any]:
        try:
            return function(**arguments)
        except LoradarError as error:
            raise ToolError(error.message) from error

    tool = Tool.from_function(answer, annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True))
    model = tool.fn_metadata.arg_model  # the SDK's would ignore a misspelt argument silently
    model.model_config["extra"] = "forbid"
    model.model_rebuild(force=True)
    tool.parameters = model.model_json_schema()
    return tool
