"""``loradar mcp``, by the client of the protocol's SDK."""

import json
import subprocess
import sys

import anyio
import pytest
from in_process import InProcess

pytest.importorskip("mcp", reason="the extra 'mcp' is not installed")

from mcp import Client

import loradar
from loradar.cli import agents
from loradar.schema import to_json

AXOLOTL = "base_model: EleutherAI/gpt-neox-20b\nadapter: lora\nlora_target_modules: [q_proj]\n"


def call(*calls):
    """Return the results of calls, each ``(tool, arguments)``, of a server in this process."""

    async def talk():
        async with Client(agents.make_server()) as client:
            return [await client.call_tool(tool, arguments) for tool, arguments in calls]

    return anyio.run(talk)


def test_tools_describe_themselves():
    """Agents read the docstring, and what each argument is; nothing else is accepted."""

    async def talk():
        async with Client(agents.make_server()) as client:
            return (await client.list_tools()).tools

    tools = {tool.name: tool for tool in anyio.run(talk)}
    assert [*tools] == ["lookup", "scan", "explain", "check", "plan"]
    for tool in tools.values():
        assert tool.description.strip()
        assert all(each["description"] for each in tool.input_schema["properties"].values())
        assert tool.input_schema["additionalProperties"] is False
    assert tools["lookup"].input_schema["required"] == ["reference"]
    assert "recommended" in tools["lookup"].input_schema["properties"]["preset"]["description"]


@pytest.mark.usefixtures("read_settings")
def test_tools_answer_as_their_functions_do():
    """The same JSON as that of Python and of the command line."""
    found, selected, explained, checked = call(
        ("lookup", {"reference": "LlamaForCausalLM", "preset": "mlp"}),
        ("lookup", {"reference": "llava", "towers": "vision", "rank": 4}),
        ("explain", {"reference": "gpt_neox", "layer": "query_key_value"}),
        ("check", {"text": AXOLOTL}),
    )
    assert found.structured_content == to_json(loradar.lookup("LlamaForCausalLM", preset="mlp"))
    assert selected.structured_content == to_json(loradar.lookup("llava", towers="vision", rank=4))
    assert explained.structured_content == to_json(loradar.explain("gpt_neox", "query_key_value"))
    (part,) = checked.structured_content["parts"]
    assert part["findings"][0]["code"] == "nothing"
    assert json.loads(found.content[0].text) == found.structured_content


@pytest.mark.usefixtures("read_settings")
def test_errors_are_answers_with_the_way_out():
    """An agent reads them and tries again; the server goes on."""
    unknown, misspelt, both, code, file = call(
        ("lookup", {"reference": "lama"}),
        ("lookup", {"reference": "llama", "presets": "mlp"}),
        ("scan", {}),
        ("scan", {"reference": "torch:os:system"}),
        ("plan", {"reference": "file:/etc/passwd"}),
    )
    assert all(each.is_error for each in (unknown, misspelt, both, code, file))
    assert unknown.content[0].text.endswith("Closest: 'llama'. Try: loradar lookup llama")
    assert "presets\n  Extra inputs are not permitted" in misspelt.content[0].text
    assert "one of them" in both.content[0].text
    for rejected in (code, file):
        assert "is not built for agents: it may be any code or file. Schemes: 'hub'" in rejected.content[0].text


def test_a_configuration_is_scanned_and_a_training_planned(monkeypatch):
    """What nobody registered, with the kinds of its layers and the number of single ones."""
    monkeypatch.setattr(agents, "Sandbox", InProcess)
    config = {"model_type": "olmo2", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4}
    config |= {"num_key_value_heads": 4, "intermediate_size": 96, "vocab_size": 128}
    scanned, planned, unfit = call(
        ("scan", {"config": config}),
        ("plan", {"reference": "gpt2", "memory": "24GB", "presets": ["default"], "ranks": [8], "length": 16}),
        ("plan", {"reference": "gpt2", "dtype": "fp7"}),
    )
    found = scanned.structured_content
    assert (found["architecture"]["name"], found["layers"]) == ("olmo2", 2 * 11 + 3)
    assert {"attention.query", "mlp.down"} <= {slot["role"] for slot in found["slots"]}
    default = next(each for each in found["proposals"] if each["preset"] == "default")
    assert default["target_modules"] == ["q_proj", "v_proj"]
    (choice,) = planned.structured_content["choices"]
    assert (choice["preset"], choice["rank"], choice["fits"]) == ("default", 8, True)
    assert unfit.is_error
    assert "dtype='fp7' is unknown" in unfit.content[0].text


STRAY = """
import os, loradar.cli, loradar.cli.agents as agents
found = agents.lookup
def look_up(*query, **choice):
    print("stray", flush=True)
    os.write(1, b"stray\\n")
    return found(*query, **choice)
agents.lookup = look_up
loradar.cli.main(["mcp"])
"""


@pytest.mark.usefixtures("read_settings")
def test_standard_output_is_the_protocol_alone():
    """Another process, as agents start it, whose libraries print: it comes on standard error."""
    about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    looked_up = {"name": "lookup", "arguments": {"reference": "llama"}}
    sent = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": about},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": looked_up},
    ]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", STRAY], text=True, **pipes) as server:  # noqa: S603
        server.stdin.write("".join(json.dumps(each) + "\n" for each in sent))
        server.stdin.flush()
        answers = [json.loads(server.stdout.readline()) for _ in range(2)]
        rest, reported = server.communicate()
    assert (rest, server.returncode) == ("", 0)
    assert reported.count("stray") == 2
    assert [each["id"] for each in answers] == [1, 2]
    assert answers[0]["result"]["serverInfo"]["name"] == "loradar"
    assert answers[1]["result"]["structuredContent"]["target_modules"] == ["q_proj", "v_proj"]


def test_a_missing_extra_is_one_line(run, monkeypatch):
    """With the way to install it."""
    monkeypatch.setattr("loradar.extras.find_spec", lambda _: None)
    assert run("mcp") == (2, "", "Error: 'mcp' is not installed. Install it with: pip install 'loradar[mcp]'\n")
