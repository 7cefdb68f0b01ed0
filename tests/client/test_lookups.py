"""``LORADAR_URL``: a service, or static files, are asked first, and else the registry on this machine answers."""

import json
import os
import subprocess
import sys
import warnings

import pytest
from records_zoo import make_scan, proposal
from scripted_server import ScriptedServer
from transformers import AutoModelForCausalLM, MistralConfig

import loradar
from loradar import lookups
from loradar.api import running
from loradar.cli import main
from loradar.errors import InvalidRequest, NotRegistered, TooManyRequests
from loradar.registry import Registry, parse_constants, write_static
from loradar.schema import to_json
from loradar.settings import URL_VARIABLE, Settings


@pytest.fixture(autouse=True)
def forget():
    """Leave no connection, and nothing that was warned of."""
    yield
    lookups.forget_services()


@pytest.fixture
def elsewhere(tmp_path, seeded):
    """The settings of another machine's registry, which has one architecture more."""
    settings = Settings(tmp_path / "elsewhere", f"sqlite:///{tmp_path}/elsewhere.sqlite3")
    (tmp_path / "elsewhere.sqlite3").write_bytes(seeded.read_bytes())
    with Registry.open(settings) as registry:
        registry.add_scan(make_scan("only_there"))
    return settings


@pytest.fixture
def service(elsewhere, monkeypatch):
    """A service with that registry, which ``LORADAR_URL`` names."""
    with running(elsewhere) as url:
        monkeypatch.setenv(URL_VARIABLE, url)
        yield url


@pytest.fixture
def scripted(monkeypatch):
    """A server that answers as it is told to, which ``LORADAR_URL`` names."""
    with ScriptedServer().running() as server:
        monkeypatch.setenv(URL_VARIABLE, server.url)
        yield server


@pytest.mark.usefixtures("service")
def test_a_lookup_asks_the_service(elsewhere, home, capsys):
    """In Python and on the command line; nothing is made here but the store of responses."""
    with Registry.open(elsewhere) as registry:
        expected = registry.lookup("only_there")
    assert loradar.lookup("only_there") == expected
    with pytest.raises(SystemExit, match="0"):
        main(["lookup", "only_there", "--json"])
    assert json.loads(capsys.readouterr().out) == to_json(expected)
    assert {file.name.partition("-")[0] for file in home.iterdir()} == {"responses.sqlite3"}


@pytest.mark.usefixtures("service", "seeded_settings")
def test_what_the_service_does_not_have_is_looked_up_here():
    """With one warning for each name; what neither has is the error of the service."""
    with Registry.open() as registry:
        registry.add_scan(make_scan("only_here", proposals=(proposal("k_proj"),)))
    with pytest.warns(UserWarning, match="this machine answers for 'only_here' instead of http"):
        assert loradar.lookup("only_here").spec.target_modules == ("k_proj",)
    assert loradar.lookup("only_here").spec.target_modules == ("k_proj",)
    with pytest.raises(NotRegistered, match="nowhere_at_all"):
        loradar.lookup("nowhere_at_all")


@pytest.mark.usefixtures("read_settings")
@pytest.mark.parametrize("answer", [None, (503, {}, b"away"), (429, {"Retry-After": "60"}, b"limited")])
def test_a_service_that_fails_is_left_alone_for_a_while(scripted, answer):
    """The registry here answers, and one warning says so; every error of another kind is the caller's."""
    if answer and answer[0] == 429:
        answer = (*answer[:2], json.dumps(TooManyRequests("Too many.", retry_after=60).to_dict()).encode())
    scripted.answers = [answer]
    with pytest.warns(UserWarning, match="The registry on this machine answers instead of http") as warned:
        assert loradar.lookup("llama") == loradar.lookup("llama")
    assert len(warned) == 1
    asked = len(scripted.asked)
    loradar.lookup("bert")
    assert len(scripted.asked) == asked


@pytest.mark.usefixtures("read_settings")
def test_static_files_answer_and_leave_the_rest_to_the_registry(tmp_path, seeded, scripted):
    """A selection, which no file holds, is computed here."""
    with Registry.open(Settings(tmp_path, f"sqlite:///{seeded}")) as registry:
        [*write_static(registry, tmp_path / "out", ("llama",))]
    scripted.files = tmp_path / "out"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = loradar.lookup("llama", preset="recommended")
    assert found.preset == "recommended"
    with pytest.warns(UserWarning, match="answers for 'llama' instead of http.*: Static files cannot answer rank"):
        assert loradar.lookup("llama", rank=4).rank == 4


@pytest.mark.usefixtures("service", "read_settings")
def test_an_adapter_is_chosen_by_the_service(elsewhere):
    """``get_peft_model`` asks it by name, and takes its targets where they fit the model."""
    stated = 'TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING = {"mistral": ["o_proj"]}'
    with Registry.open(elsewhere) as registry:
        registry.add_constants(parse_constants(stated.encode(), "0.99", "constants.py"))
    tiny = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = MistralConfig(**tiny, num_hidden_layers=2, vocab_size=32)
    decision = loradar.get_peft_model(AutoModelForCausalLM.from_config(config)).decision
    assert (decision.step, decision.spec.target_modules) == ("registry", ("o_proj",))


@pytest.mark.parametrize(
    "url",
    ["registry.example", "ftp://x", "http://", "http://me:secret@x", "http://x/?a=1", "http://x#y", "http://x:99999"],
)
def test_a_url_that_is_none_is_rejected(url, monkeypatch):
    """At once, and a password in it is not repeated."""
    monkeypatch.setenv(URL_VARIABLE, url)
    with pytest.raises(InvalidRequest, match=URL_VARIABLE) as caught:
        loradar.lookup("llama")
    assert "secret" not in str(caught.value)


def test_without_a_url_no_client_is_imported():
    """A lookup takes as long as before."""
    code = "import sys, loradar; loradar.lookup; print({'httpx2', 'hishel', 'sqlalchemy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - ours
    assert done.stdout == "set()\n"


@pytest.mark.usefixtures("read_settings")
def test_the_command_line_prints_a_warning_as_one_line():
    """Without a place in the code of a library."""
    command = [sys.executable, "-m", "loradar.cli", "lookup", "llama"]
    environment = {**os.environ, URL_VARIABLE: "http://127.0.0.1:9"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    assert "q_proj, v_proj" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("Warning: The registry on this machine answers instead of http://127.0.0.1:9: ConnectError")
