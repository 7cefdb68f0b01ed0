"""The command line, as a user meets it."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import entry_points

import pytest
import typer
from patience import patience
from records_zoo import make_scan
from seeding import PEFT_ALONE, seeds_of
from transformers import LlamaConfig, LlamaModel

from loradar import __version__
from loradar.api import running
from loradar.cli import app, main
from loradar.cli.lookup import print_mapping
from loradar.discovery import scan
from loradar.domain.architectures import ArchitectureName, ModelPart
from loradar.domain.mappings import Mapping, Source, Verification
from loradar.registry import Registry, load_constants
from loradar.registry.peft_constants.reading import entries_of_constants

ACCEPTED = ["olmo2", "phi3", "vit", "whisper", "modernbert", "timm:resnet50", "timm:vit_base_patch16_224"]


@pytest.mark.parametrize("reference", ACCEPTED)
def test_what_is_scanned_and_stored_is_looked_up(run, seeded_settings, reference):
    """The targets come back with their reasons, and the same scan adds no second revision."""
    code, out, _ = run("scan", reference, "--store", "--json")
    scanned = json.loads(out)["proposals"][0]
    assert code == 0
    code, out, _ = run("lookup", reference, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["target_modules"] == scanned["target_modules"]
    assert found["reasons"] == scanned["reasons"]
    assert found["source"]["kind"] == "scanner"
    with Registry.open(seeded_settings) as registry:
        serial = registry.serial()
    assert "0 new revisions" in run("scan", reference, "--store")[1]
    with Registry.open(seeded_settings) as registry:
        assert registry.serial() == serial


def test_a_stored_model_is_scanned(run, tmp_path):
    """With how it fits its type, whose own scan is the one to store; a type nobody has is stored itself."""
    config = LlamaConfig(
        hidden_size=16, intermediate_size=32, num_attention_heads=2, num_hidden_layers=2, vocab_size=32
    )
    LlamaModel(config).save_pretrained(tmp_path)
    code, out, _ = run("scan", f"file:{tmp_path}")
    assert code == 0
    assert re.search(r"stored +20 tensors in 1 files; 1 headers were read\n", out)
    assert re.search(r"verdict +fits with renames\n +renames +model.\* = \*\n +missing +lm_head\n", out)
    code, _, err = run("scan", f"file:{tmp_path}", "--store")
    assert (code, err.strip().endswith("loradar scan transformers:llama --store")) == (2, True)
    (tmp_path / "config.json").write_text('{"model_type": "brandnew"}')
    assert run("scan", f"file:{tmp_path}", "--store")[0] == 0
    assert "q_proj" in run("lookup", "brandnew")[1]


def test_a_composite_is_asked_by_its_parts(run, registry):
    """The answer names its make-up and the way to ask for another; a wrong part is one line."""
    parts = (ModelPart("text", "llama", True, "model"), ModelPart("vision", "vit", False))  # noqa: FBT003
    registry.add_scan(replace(make_scan("seer"), parts=parts))
    code, out, _ = run("lookup", "seer")
    assert code == 0
    assert "of the default configuration: text model llama, vision model vit" in out
    assert run("lookup", "seer", "--part", "text=llama", "--part", "vision=vit")[1] == out
    for part, words in {"txt=t5": "Closest: 'text'", "text": "Write NAME=TYPE", "vision=clip": "always 'vit'"}.items():
        code, out, err = run("lookup", "seer", "--part", part)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert words in err


@pytest.mark.usefixtures("read_settings")
def test_a_scan_shows_slots_and_reasons(run):
    """A person reads what was found and why."""
    code, out, _ = run("scan", "olmo2", "--method", "names")
    assert code == 0
    assert "transformers:olmo2 · Olmo2ForCausalLM · by names" in out
    assert "model.layers.*.self_attn.q_proj" in out
    assert "LORA default: 64 layers, trains r x 524,288, 16.6% of the blocks" in out
    assert "q_proj, v_proj" in out


def test_a_scan_names_what_is_built_the_same(run, registry):
    """As long as the architecture itself is not registered: those with the same names, those with other names."""
    found = scan("torch:zoo:MLP")
    for name, fingerprint in (("twin", found.architecture.fingerprint), ("cousin", "sha256:1"), ("uncle", "sha256:2")):
        registry.add_scan(replace(found, architecture=replace(found.architecture, name=name, fingerprint=fingerprint)))
    out = run("scan", "torch:zoo:MLP")[1]
    assert "Not registered, but built like torch:twin: the same layers under the same names." in out
    assert re.search(r"Not registered, but built like \S+ and \d+ more: the same layers under other names.", out)
    registry.add_scan(found)
    assert "Not registered" not in run("scan", "torch:zoo:MLP")[1]


def test_a_scan_goes_without_a_registry_that_cannot_be_used(run, home):
    """It needs none; the reason is told on standard error."""
    home.mkdir()
    (home / "registry.sqlite3").write_bytes(b"somebody's notes" * 100)
    code, out, err = run("scan", "torch:discovery_zoo:Decoder")
    assert (code, "Slots" in out) == (0, True)
    assert "The registry is unavailable: " in err


@pytest.mark.usefixtures("seeded_settings")
def test_a_lookup_shows_source_and_verification(run):
    """PEFT's entry says that it is PEFT's."""
    code, out, _ = run("lookup", "llama")
    assert code == 0
    assert "target_modules  q_proj, v_proj" in out
    assert "peft 0.21.2, revision 1" in out


@pytest.mark.usefixtures("seeded_settings")
def test_other_peft_types_are_looked_up(run):
    """IA3 has feed-forward modules too."""
    _, out, _ = run("lookup", "llama", "--peft-type", "ia3", "--json")
    found = json.loads(out)
    assert found["peft_type"] == "IA3"
    assert found["feedforward_modules"] == ["down_proj"]


def test_a_lookup_over_rest_gives_the_same(run, seeded_settings):
    """With --url the service answers in the registry's place."""
    here = run("lookup", "llama", "--json")
    with running(seeded_settings) as url:
        assert run("lookup", "llama", "--json", "--url", url) == here


@pytest.mark.usefixtures("seeded_settings")
def test_the_nearest_are_listed_with_their_differences(run):
    """For a person in words, for a program as JSON."""
    out = run("similar", "qwen3", "--limit", "20")[1]
    assert "has no norms in its attention where qwen3 has q_norm and k_norm" in out
    assert len([line for line in out.splitlines() if not line.startswith("      ")]) == 20
    assert "the same slots" in run("similar", "timm:resnet50", "--limit", "1")[1]


def test_the_nearest_over_rest_are_the_same(run, seeded_settings):
    """With --url the service answers in the registry's place."""
    here = run("similar", "llama", "--json", "--limit", "3")
    assert len(json.loads(here[1])["similar"]) == 3
    with running(seeded_settings) as url:
        assert run("similar", "llama", "--json", "--limit", "3", "--url", url) == here


BAD = [
    (("scan", "olmo22"), "Unknown architecture 'olmo22'. Closest: 'olmo2'"),
    (("scan", "timm:resnet51"), "'resnet50'"),
    (("scan", "gopher:x"), "Unknown scheme 'gopher'"),
    (("scan", "encodec"), "no layer an adapter could sit on"),
    (("scan", "olmo2", "--method", "magic"), "method 'magic'"),
    (("scan",), "Nothing to scan"),
    (("scan", "--all", "timm"), "--out"),
    (("lookup", "qqqqzzzz"), "loradar list"),
    (("lookup", "lama"), "'llama'"),
    (("lookup", "llama", "--preset", "defualt"), "Unknown preset 'defualt'. Closest: 'default'"),
    (("lookup", "llama", "--peft-type", "LORRA"), "Unknown PEFT type 'LORRA'. Closest: 'LORA'"),
    (("lookup", "llama", "--url", "http://127.0.0.1:9"), "http://127.0.0.1:9"),
    (("similar", "lama"), "Closest: 'llama'"),
    (("similar", "chatglm"), "loradar scan chatglm --store"),
    (("list", "tim"), "Unknown library 'tim'. Closest: 'timm'"),
    (("serve", "--port", "99999"), "99999"),
    (("constants", "import", "/no/such/constants.py"), "/no/such/constants.py"),
]


@pytest.mark.usefixtures("seeded_settings")
@pytest.mark.parametrize(
    ("command", "words"), BAD, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_bad_input_is_one_line_and_exit_code_2(run, command, words):
    """No traceback, and the message names the value or the way out."""
    code, out, err = run(*command)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.usefixtures("seeded_settings")
def test_an_error_under_json_is_json(run):
    """Programs read the one error shape from standard output."""
    code, out, err = run("lookup", "lama", "--json")
    error = json.loads(out)["error"]
    assert (code, err) == (2, "")
    assert error["code"] == "not_registered"
    assert "llama" in error["details"]["near"]


def test_a_corrupted_database_is_named_and_kept(run, home):
    """Nothing in it is changed."""
    home.mkdir()
    path = home / "registry.sqlite3"
    path.write_bytes(b"not a database, but somebody's notes" * 50)
    before = path.read_bytes()
    code, _, err = run("lookup", "llama")
    assert code == 2
    assert str(path) in err
    assert path.read_bytes() == before


@pytest.mark.first_use
def test_the_database_is_made_on_first_use(run, home):
    """And db info tells where it is and what is in it: PEFT's entries, where the catalog would take seconds to load."""
    assert not home.exists()
    with seeds_of(PEFT_ALONE):
        code, out, _ = run("db", "info", "--json")
        assert "mappings" in run("db", "info")[1]
    state = json.loads(out)
    assert code == 0
    assert state["counts"]["mappings"] == len([*entries_of_constants(load_constants())]) > 500
    assert str(home) in state["url"]


@pytest.mark.usefixtures("seeded_settings")
def test_constants_are_imported_and_exported(run, tmp_path):
    """A contributor's constants.py adds what it has beyond the seeded one."""
    source = tmp_path / "constants.py"
    source.write_text('TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING = {"my_own": ["q_proj"]}\n')
    assert "1 new mappings" in run("constants", "import", str(source), "--version", "0.99")[1]
    assert json.loads(run("lookup", "my_own", "--json")[1])["source"] == {"kind": "peft", "version": "0.99"}
    out = tmp_path / "facts.json"
    assert run("constants", "facts", str(out), str(source), "--version", "0.99")[0] == 0
    assert "my_own" in out.read_text()


@pytest.mark.usefixtures("read_settings")
def test_names_are_listed_and_searched_without_torch(run, monkeypatch):
    """Those of the registry, which needs no library; ``--installed`` asks the library itself."""
    monkeypatch.setattr("loradar.extras.find_spec", lambda _: None)
    assert "\nolmo2\n" in run("list")[1]
    assert "resnet50" in json.loads(run("list", "timm", "--json")[1])["names"]
    assert (
        "'torch' is not installed" in run("list", "timm", "--installed")[2]
        or "not installed" in run("list", "timm", "--installed")[2]
    )
    assert run("search", "sdxl")[1].splitlines()[0].split() == [
        *("diffusers:UNet2DConditionModel", "a", "nickname,", "'sdxl'")
    ]
    found = json.loads(run("search", "resnet50", "--json")[1])
    assert found["candidates"][0]["reference"] == "timm:resnet50"
    assert "timm:seresnet50" in found["containing"]


@pytest.mark.usefixtures("read_settings")
def test_layers_and_errors_are_searched_too(run):
    """Text that is no name may be that of a layer, or the message of an error, as on the page."""
    code, out, _ = run("search", "Wqkv")
    assert (code, "transformers:mpt" in out, "24 layers named 'Wqkv': attention.qkv" in out) == (0, True, True)
    assert re.search(r"and \d{3} more", run("search", "q_proj")[1])
    assert json.loads(run("search", "Wqkv", "--json")[1])["layers"][0]["because"].endswith("attention.qkv")
    assert (
        "a class, 'OlmoeForCausalLM'"
        in run("search", "AttributeError: 'OlmoeForCausalLM' object has no attribute 'x'")[1]
    )
    assert (
        "None of these target modules is in the model"
        in run("search", "Target modules {'x'} not found in the base model")[2]
    )
    assert run("search", "xyzzyqq")[0] == 2


@pytest.mark.usefixtures("read_settings")
def test_other_commands_take_any_spelling_and_say_so(run):
    """On standard error, so that their output is what it is for the exact name; a guess is not taken."""
    code, out, err = run("similar", "LlamaForCausalLM", "--limit", "2")
    assert (code, err) == (0, "'LlamaForCausalLM' is transformers:llama: a class, 'LlamaForCausalLM'.\n")
    assert (code, out, "") == run("similar", "llama", "--limit", "2")
    assert run("similar", "somebody/llama-3-tuned")[0] == 2


@pytest.mark.usefixtures("read_settings")
def test_several_references_are_one_table(run):
    """With what each was understood as, and a configuration to paste that says what it is of."""
    code, out, err = run("lookup", "LlamaForCausalLM", "SDXL")
    assert (code, err) == (0, "")
    assert "LoraConfig(r=8, target_modules=['q_proj', 'v_proj'])  # LlamaForCausalLM" in out
    assert "SDXL              diffusers:UNet2DConditionModel" in out
    assert "'sdxl', a nickname" in out
    code, out, _ = run("lookup", "llama", "lama", "--json")
    assert code == 2
    assert ["error" in one for one in json.loads(out)["answers"]] == [False, True]


def test_version_and_help(run):
    """The two first things a user tries."""
    assert run("--version")[1] == f"loradar {__version__}\n"
    assert "lookup" in run("--help")[1]


def test_the_command_is_installed():
    """`loradar` on the path is this main."""
    (command,) = entry_points(group="console_scripts", name="loradar")
    assert command.load() is main


@pytest.mark.usefixtures("seeded_settings")
def test_a_lookup_imports_no_torch():
    """Lookups stay instant: neither torch nor anything as heavy is loaded, also not by `import loradar`."""
    code = (
        "import sys, loradar\n"
        "from loradar.cli import app, main\n"
        "try:\n    main(['lookup', 'llama', '--json'])\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {'torch', 'transformers', 'timm', 'sqlalchemy', 'alembic', 'fastapi', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["target_modules"] == ["q_proj", "v_proj"]


def test_a_partial_entry_says_what_each_target_hits(capsys):
    """PEFT's IA3 entry for mixtral names w2, which transformers 5 no longer has."""
    counts = {"k_proj": {"linear": 32}, "w2": {}}
    check = Verification("partial", "5.24.0", counts, 0.1, ("w2 matches nothing",))
    mapping = Mapping(
        architecture=ArchitectureName("transformers", "mixtral"),
        peft_type="IA3",
        preset="default",
        target_modules=("k_proj", "w2"),
        feedforward_modules=("w2",),
        id="sha256:0",
        source=Source("peft", "0.21.2"),
        revision=1,
        verification=check,
    )
    print_mapping(mapping)
    out = capsys.readouterr().out
    assert "partial on transformers" in out
    assert "w2 matches nothing" in out


@pytest.mark.usefixtures("seeded_settings")
def test_a_method_without_targets_is_answered_with_its_facts(run):
    """And a method that shares targets says whose."""
    run("scan", "olmo2", "--store", "--json")
    assert "num_layers = 32" in run("lookup", "olmo2", "--peft-type", "prefix_tuning")[1]
    assert "LOHA shares LORA's targets" in run("lookup", "olmo2", "--peft-type", "loha")[1]


def test_a_whole_library_is_counted_as_json(run, tmp_path, monkeypatch):
    """Standard output holds the JSON alone; the progress bar goes to standard error."""
    monkeypatch.setattr("loradar.discovery.sources.list_names", lambda _: ["olmo2", "dinat"])
    out = tmp_path / "catalog.jsonl"
    bounds = ("--method", "names", "--workers", "1", "--seconds", f"{patience():g}", "--memory", "4")
    for form in ((), ("--compact",)):
        out.unlink(missing_ok=True)
        code, printed, _ = run("scan", "--all", "transformers", "--out", str(out), "--json", *bounds, *form)
        assert code == 0
        assert json.loads(printed) == {"file": str(out), "scanned": 1, "unscanned": 1}


@pytest.mark.parametrize(
    ("option", "words"),
    [(("--workers", "0"), "workers = 0"), (("--seconds", "-1"), "seconds = -1"), (("--store",), "nor --store")],
)
def test_a_whole_library_needs_bounds_and_a_file(run, tmp_path, option, words):
    """Refused before anything is scanned or written."""
    out = tmp_path / "catalog.jsonl"
    code, _, err = run("scan", "--all", "transformers", "--out", str(out), *option)
    assert (code, out.exists()) == (2, False)
    assert words in err


def test_exported_constants_are_reported_as_json(run, tmp_path):
    """Where the facts went, and of which version they are."""
    out = tmp_path / "facts.json"
    assert json.loads(run("constants", "facts", str(out), "--json")[1]) == {"file": str(out), "version": "0.21.2"}


def test_the_service_says_where_it_is_as_json(capsys, monkeypatch):
    """A program that starts it on a free port reads the URL."""
    monkeypatch.setattr("loradar.api.serve", lambda _, host, port, ready, __: ready(f"http://{host}:{port + 1}"))
    with pytest.raises(SystemExit):
        main(["serve", "--port", "0", "--json"])
    assert json.loads(capsys.readouterr().out) == {"url": "http://127.0.0.1:1"}


def every_command(group, path=()):
    """Yield (path, command) of every command, those of groups included."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from every_command(command, (*path, name))
        else:
            yield (*path, name), command


def test_every_command_takes_json():
    """A program can use any of them; what ``mcp`` prints is a protocol in JSON already."""
    commands = dict(every_command(typer.main.get_command(app)))
    del commands["mcp",]
    assert len(commands) >= 7
    without = [" ".join(path) for path, command in commands.items() if not takes(command, "--json")]
    assert not without


def test_arguments_have_names_in_capitals():
    """Alike in all commands; the brackets and dots around them are typer's: ``[[LIBRARY]]...`` said it twice."""
    for path, command in every_command(typer.main.get_command(app)):
        named = [one.metavar for one in command.params if one.param_type_name == "argument"]
        assert all(name and name.isupper() and not {*"[]."} & {*name} for name in named), path


def takes(command, option):
    """Tell whether a command has an option."""
    return any(option in parameter.opts for parameter in command.params)


@pytest.mark.usefixtures("read_settings")
def test_a_proved_scan_says_what_is_live(run):
    """How it was proved, and what a kernel bypasses."""
    status, out, _ = run("scan", "mamba2", "--prove")
    assert status == 0
    assert re.search(r"proof +1/\d+ of its widths, .*: forward, backward, merged within 1e-04", out)
    assert re.search(r"kernel +64 backbone.layers.\*.mixer.out_proj: mamba2_\w+ at modeling_mamba2.py:\d+", out)
