"""``loradar snippet``: the text alone on standard output, so that it can be kept in a file."""

import json

import pytest
import yaml


@pytest.mark.usefixtures("read_settings")
def test_a_snippet_is_printed_or_written(run, tmp_path):
    """Nothing else is on standard output."""
    code, out, err = run("snippet", "mixtral", "--for", "axolotl", "--preset", "recommended", "--rank", "16")
    assert (code, err) == (0, "")
    assert yaml.safe_load(out)["lora_rank_pattern"] == {"gate_up_proj": 8, "down_proj": 8}
    file = tmp_path / "x.yaml"
    code, out, err = run("snippet", "mixtral", "--for", "llama-factory", "--preset", "recommended", "--out", str(file))
    assert (code, out) == (0, "")
    assert "Note: LLaMA-Factory has no key for target_parameters" in err
    assert yaml.safe_load(file.read_text())["finetuning_type"] == "lora"
    assert run("check", str(file))[0] == 0


@pytest.mark.usefixtures("read_settings")
def test_json_has_the_text_the_notes_and_the_version(run):
    """For programs."""
    code, out, _ = run("snippet", "Qwen/Qwen3-8B", "--for", "ms-swift", "--json")
    assert code == 0
    written = json.loads(out)
    assert written["text"].startswith("# transformers:qwen3")
    assert written["file"] == "train.sh"


@pytest.mark.usefixtures("read_settings")
def test_an_unknown_tool_is_one_line_with_the_known_ones(run):
    """And the nearest first."""
    code, out, err = run("snippet", "llama", "--for", "axolotel")
    assert (code, out) == (2, "")
    assert err.startswith("Error: Unknown tool 'axolotel'. Closest: 'axolotl'. Tools: loradar, peft, trl, axolotl, ")
    assert err.count("\n") == 1
