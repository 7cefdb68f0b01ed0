"""Contributing by commands at the local registry; what the machine checks would find is given, but in the last test."""

import io
import json
import re
import subprocess
import sys
from contextlib import nullcontext

import pytest
from records_zoo import make_scan

from loradar.cli import main
from loradar.cli.options import TOKEN_VARIABLE
from loradar.domain.identities import LOCAL
from loradar.domain.layers import Coverage
from loradar.domain.mappings import Verification
from loradar.domain.submissions import Checked, Difference, Statement, SubmissionEvidence
from loradar.domain.targets import TargetSpec
from loradar.errors import WorkerFailed
from loradar.registry import read_constants
from loradar.registry.contributions import submissions

ONE = '{"olmo2": ["q_proj", "v_proj"]}'


@pytest.fixture
def run(capsys, monkeypatch, seeded_settings):
    """Return a function that runs a command, as somebody, and returns (exit code, standard output, standard error)."""
    assert seeded_settings

    def run_command(*arguments, token=None):
        with monkeypatch.context() as patch:
            patch.setenv(TOKEN_VARIABLE, token or "")
            with pytest.raises(SystemExit) as stopped:
                main([str(one) for one in arguments])
        printed = capsys.readouterr()
        return stopped.value.code or 0, printed.out, printed.err

    return run_command


@pytest.fixture
def tokens(registry):
    """The secrets of a contributor and two reviewers."""
    roles = {"ada": "contributor", "bob": "reviewer", "eve": "reviewer"}
    return {name: registry.tokens.create(name, role)[1] for name, role in roles.items()}


class Checker:
    """Stands for the worker process: notes what is checked, and finds what it is told to."""

    def __init__(self) -> None:
        self.asked = []
        self.finds = found()

    def run(self, function, statement, registered):
        """Find what was given."""
        self.asked.append((function, statement, registered))
        if isinstance(self.finds, Exception):
            raise self.finds
        return self.finds


def found(failure=None, **evidence):
    """Return what the checks of a sound statement find, but for the fields given."""
    spec = TargetSpec(target_modules=("q_proj", "v_proj"))
    counts = {"q_proj": {"linear": 32}, "v_proj": {"linear": 32}}
    layers = {"model.layers.*.self_attn.q_proj": 32, "model.layers.*.self_attn.v_proj": 32}
    told = {
        "proof": "1/16 of its widths: forward, backward",
        "verification": Verification("live", "5.24.0", counts, 0.166),
        "spec": spec,
        "layers": layers,
        "matched": 64,
        **evidence,
    }
    return Checked(SubmissionEvidence("dataflow", builds=True, **told), failure)


@pytest.fixture
def checker(monkeypatch):
    """The checker in the place of the worker process."""
    made = Checker()
    monkeypatch.setattr("loradar.sandbox.pool.Sandbox", lambda _: nullcontext(made))
    return made


# --- tokens ------------------------------------------------------------------------------------------------------


def test_a_token_stands_alone_on_standard_output(run, registry):
    """So that a script can keep it; whose it is goes to standard error."""
    code, out, err = run("token", "create", "ada", "--role", "contributor", "--expires", "30")
    assert code == 0
    assert re.fullmatch(r"lrd_\S{43}\n", out)
    assert "ada is a contributor until 20" in err
    actor = registry.tokens.authenticate(out.strip())
    assert (actor.name, actor.role) == ("ada", "contributor")


def test_tokens_are_listed_and_revoked(run, registry):
    """Never with their secrets."""
    made = json.loads(run("token", "create", "bob", "--role", "reviewer", "--json")[1])
    assert registry.tokens.authenticate(made["secret"]).name == "bob"
    out = run("token", "list")[1]
    assert "bob" in out
    assert "until revoked, used" in out
    assert made["secret"] not in out + run("token", "list", "--json")[1]
    assert run("token", "revoke", "1")[1] == "Token 1 of bob is revoked.\n"
    assert "revoked 20" in run("token", "list")[1]
    assert json.loads(run("token", "list", "--json")[1])["tokens"][0]["revoked_at"]
    code, out, err = run("submit", ONE, token=made["secret"])
    assert (code, out) == (2, "")
    assert "was revoked" in err


def test_without_tokens_the_list_says_how_to_make_one(run):
    """A new registry has none."""
    assert "loradar token create NAME --role ROLE" in run("token", "list")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("token", "create", "ada", "--role", "king"), "Unknown role 'king'. Roles: 'contributor', 'reviewer'"),
        (("token", "create", "A da", "--role", "admin"), "Invalid token name 'A da'"),
        (("token", "create", "loradar", "--role", "admin"), "is reserved"),
        (("token", "revoke", "7"), "Unknown token '7'"),
        (("submit", ONE), "Create one with: loradar token create NAME --role ROLE; then set LORADAR_TOKEN to it."),
        (("review", "1", "--approve", "--comment", "x"), "This needs a token."),
        (("submit", ONE, "--url", "http://127.0.0.1:9"), "Ask the operator of http://127.0.0.1:9 for one"),
        (("token", "list", "--url", "http://127.0.0.1:9"), "This needs a token."),
        (("submissions", "--status", "lost"), "Unknown status 'lost'. Give one of 'checking'"),
        (("submissions", "--origin", "mars"), "Unknown origin 'mars'. Give one of 'contributor', 'drift'."),
        (("drift", "--name", "lama"), "No such mapping is registered for: 'lama'."),
        (("drift", "--library", "keras"), "Unknown library 'keras'"),
        (("submission", "1"), "Unknown submission '1'. List them with: loradar submissions"),
    ],
)
def test_what_cannot_be_done_is_one_line(run, arguments, words):
    """With the way out, and exit code 2."""
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_an_unknown_token_is_refused(run):
    """Its value is not repeated."""
    code, _, err = run("submit", ONE, token="lrd_guessed")  # noqa: S106 - none
    assert code == 2
    assert "Unknown token." in err
    assert "guessed" not in err


# --- submitting --------------------------------------------------------------------------------------------------

BODY = {"library": "transformers", "name": "olmo2", "target_modules": ["q_proj", "v_proj"], "rationale": "As usual."}
TOML = 'name = "olmo2"\ntarget_modules = ["q_proj", "v_proj"]\n'
FORMS = [
    ("one.json", json.dumps(BODY), ["olmo2"]),
    ("short.json", json.dumps({"olmo2": ["q_proj"], "olmo3": ["q_proj"]}), ["olmo2", "olmo3"]),
    ("list.json", json.dumps([BODY, {"olmo3": ["q_proj"]}]), ["olmo2", "olmo3"]),
    ("one.toml", TOML, ["olmo2"]),
    ("short.toml", 'olmo2 = ["q_proj"]\nolmo3 = ["q_proj"]\n', ["olmo2", "olmo3"]),
    ("several.toml", f"[[statement]]\n{TOML}[[statement]]\n{TOML.replace('olmo2', 'olmo3')}", ["olmo2", "olmo3"]),
]


@pytest.mark.parametrize(("file", "text", "names"), FORMS, ids=[form[0] for form in FORMS])
@pytest.mark.parametrize("way", ["file", "standard input"])
def test_statements_come_in_many_forms(run, tokens, checker, tmp_path, monkeypatch, file, text, names, way):  # noqa: PLR0913, PLR0917
    """From a file, or from standard input, of JSON or TOML; one or several; whole or short."""
    path = tmp_path / file
    path.write_text(text, "utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    code, out, _ = run("submit", path if way == "file" else "-", "--json", token=tokens["ada"])
    sent = json.loads(out)["submissions"]
    assert (code, [one["statement"]["name"] for one in sent]) == (0, names)
    assert {one["status"] for one in sent} == {"needs_review"}
    assert [asked[1].name for asked in checker.asked] == names


def test_a_statement_is_given_on_the_command_line(run, tokens, checker, registry):
    """The line that PEFT's constants.py would have; it is checked at once, beside what is on record."""
    registry.add_scan(make_scan("olmo2"))
    code, out, err = run("submit", ONE, token=tokens["ada"])
    assert code == 0
    assert err == "Checking submission 1, transformers:olmo2, in a worker process ...\n"
    assert out.startswith("submission 1, needs_review: transformers:olmo2 · LORA · default · by ada\n")
    ((function, statement, registered),) = checker.asked
    assert function == "loradar.sandbox.tasks:check"
    assert statement.spec.target_modules == ("q_proj", "v_proj")
    assert [mapping.source.kind for mapping in registered] == ["scanner"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("no/such/file.json", "no/such/file.json cannot be read: No such file or directory."),
        ("{", "The statement cannot be read: it is not valid JSON: Expecting property name"),
        ('{"statement": 5}', "The statement, field 'name': It is missing."),
        ('{"olmo2": ["q_proj"], "olmo2": ["v_proj"]}', "'olmo2' is there twice"),
        ('{"name": "olmo2", "target_modules": NaN}', "NaN is not a number"),
        ("[" * 100_000, "The statement cannot be read: it is not valid JSON"),
        ("[]", "it has no statement"),
        ("[[1]]", "The statement, statement 1 is no statement."),
        ('{"name": "olmo2", "targets": ["q_proj"]}', "There is no such field."),
        ('{"olmo2": []}', "A list has 1 to 512 names"),
    ],
)
def test_what_is_no_statement_is_refused(run, tokens, registry, given, words):
    """Before anything is written."""
    code, out, err = run("submit", given, token=tokens["ada"])
    assert (code, out) == (2, "")
    assert words in err
    assert registry.submissions.list() == ()


@pytest.mark.parametrize(("name", "text"), [("x.toml", "olmo2 = [\n"), ("x.json", "olmo2"), ("x.json", b"\xff\xfe")])
def test_a_file_that_cannot_be_read_is_named(run, tokens, tmp_path, name, text):
    """With what is wrong, and an example."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, _, err = run("submit", path, token=tokens["ada"])
    assert (code, err.count("\n")) == (2, 1)
    assert str(path) in err
    assert "loradar submit '{" in err


@pytest.mark.parametrize("sent", [b"\xff\xfe", b"olmo2 = [", b"[" * 100_000])
def test_standard_input_that_cannot_be_read_is_named(run, tokens, monkeypatch, sent):
    """Whatever is in it."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(sent), "utf-8"))
    code, _, err = run("submit", "-", token=tokens["ada"])
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("Error: Standard input cannot be read: ")


def test_without_what_the_checks_need_nothing_is_taken_in(run, tokens, registry, monkeypatch):
    """It would wait for ever; a service may check it, or the extra is installed."""
    monkeypatch.setattr("loradar.extras.find_spec", lambda name: None if name == "pebble" else name)
    code, _, err = run("submit", ONE, token=tokens["ada"])
    assert (code, "pip install 'loradar[scan]'" in err) == (2, True)
    assert registry.submissions.list() == ()


@pytest.mark.usefixtures("checker")
def test_what_is_in_before_a_refusal_is_told(run, tokens):
    """The first is open already when the list comes again; under --json the error has the numbers."""
    run("submit", '{"olmo3": ["q_proj"]}', token=tokens["ada"])
    code, _, err = run("submit", '{"olmo2": ["q_proj"], "olmo3": ["q_proj"]}', token=tokens["ada"])
    assert code == 2
    assert "Submitted before the error: submission 2.\n" in err
    assert "Submission 1 is equal and open" in err
    out = run("submit", '{"gemma": ["q_proj"], "olmo3": ["q_proj"]}', "--json", token=tokens["ada"])[1]
    assert json.loads(out)["error"]["details"]["submitted"] == [3]


def test_a_failed_check_is_told_by_the_exit_code(run, tokens, checker):
    """And by its reason."""
    near = {"q_porj": ("q_proj", "k_proj")}
    check = Verification("dead", "5.24.0", {"q_porj": {}}, 0.0, ("q_porj matches nothing",))
    checker.finds = found("q_porj matches nothing.", near=near, verification=check, spec=None, layers={}, matched=0)
    code, out, _ = run("submit", '{"olmo2": ["q_porj"]}', token=tokens["ada"])
    assert code == 1
    assert "matches         q_porj: nothing. Near: q_proj, k_proj\n" in out
    assert "failed          q_porj matches nothing.\n" in out


def test_what_would_be_published_is_told_where_it_fares_better(run, tokens, checker):
    """The slip is the statement's, and not in the spec made anew."""
    counts = {"q_proj": {"linear": 32}, "v_proj": {"linear": 32}}
    live = Verification("live", "5.24.0", counts, 0.166)
    slip = Verification("partial", "5.24.0", {**counts, "q_porj": {}}, 0.166, ("q_porj matches nothing",))
    spec = TargetSpec(target_modules=("q_proj", "v_proj"))
    checker.finds = found(verification=slip, spec=spec, spec_verification=live)
    out = run("submit", '{"olmo2": ["q_proj", "v_proj", "q_porj"]}', token=tokens["ada"])[1]
    assert "verdict         partial on version 5.24.0" in out
    assert "to publish      target_modules: q_proj, v_proj\n                  which is live\n" in out


def test_a_worker_that_dies_is_an_outcome(run, tokens, checker, registry):
    """The submission failed, for a reason; the registry is well."""
    checker.finds = WorkerFailed("It took more than 8 GiB, and was ended.")
    code, out, _ = run("submit", ONE, token=tokens["ada"])
    assert code == 1
    assert "failed          It took more than 8 GiB, and was ended.\n" in out
    assert registry.submissions.get(1).status == "failed"


@pytest.mark.usefixtures("checker")
def test_what_others_left_is_checked_on_the_way(run, tokens, registry):
    """The oldest first, as a service would."""
    said = Statement("transformers", "olmo3", "LORA", "default", target_modules=("q_proj",))
    left = registry.submissions.add(said, registry.tokens.authenticate(tokens["bob"]))
    run("submit", '{"gemma": ["q_proj"]}', token=tokens["ada"])
    assert registry.submissions.get(left.id).status == "needs_review"


def test_a_check_that_was_interrupted_is_done_later(run, registry, checker):
    """By whoever waits for it."""
    said = Statement("transformers", "olmo3", "LORA", "default", target_modules=("q_proj",))
    registry.submissions.add(said, LOCAL)
    assert "checked         not yet\n" in run("submission", "1")[1]
    assert checker.asked == []
    assert "submission 1, needs_review: " in run("submission", "1", "--wait")[1]
    assert len(checker.asked) == 1
    assert run("submission", "1", "--wait")[2] == ""


# --- reading -----------------------------------------------------------------------------------------------------


def test_a_reviewer_reads_all_there_is_to_know(run, tokens, checker):
    """What it hits, what it reaches besides, what differs from what is on record and from the scanner."""
    checker.finds = found(
        outside={"head": ("lm_head",), "vision": ("vision.layers.*.q_proj",)},
        differences=(
            Difference("peft 0.21.2, revision 1", None, {}, {}),
            Difference("scanner 0.1.0, revision 1", None, {}, {}),
            Difference("the scanner's proposal", None, {"lm_head": 1}, {"model.layers.*.self_attn.k_proj": 32}),
        ),
        spec=TargetSpec(target_modules="model\\..*"),
        coverage=(Coverage("attention", 8, 32),),
    )
    run("submit", json.dumps(BODY), token=tokens["ada"])
    out = run("submission", "1")[1]
    told = [re.sub(r"\s+", " ", line.strip()) for line in out.splitlines()]
    for line in (
        "target_modules q_proj, v_proj",
        "rationale As usual.",
        "builds yes, its layers found by dataflow",
        "proof 1/16 of its widths: forward, backward",
        "verdict live on version 5.24.0, 16.6% of the blocks",
        "matches q_proj: 32 linear",
        "layers 32 model.layers.*.self_attn.q_proj",
        "covers 8 of 32 attention",
        "besides head: lm_head",
        "vision: vision.layers.*.q_proj",
        "differs beside peft 0.21.2, revision 1, scanner 0.1.0, revision 1:",
        "the same layers",
        "beside the scanner's proposal:",
        "1 layer more: 1 lm_head",
        "32 layers fewer: 32 model.layers.*.self_attn.k_proj",
        "to publish target_modules: model\\..*",
        "next loradar review 1 --approve --comment TEXT, or --reject",
    ):
        assert line in told, line
    assert json.loads(run("submission", "1", "--json")[1])["evidence"]["outside"]["head"] == ["lm_head"]


@pytest.mark.usefixtures("checker")
def test_submissions_are_listed_and_narrowed(run, tokens):
    """The newest first; where there may be more, it says how to go on."""
    for name in ("gemma", "olmo2", "olmo3"):
        run("submit", json.dumps({name: ["q_proj"]}), token=tokens["ada"])
    assert run("submissions", "--status", "failed")[1] == "No such submission.\n"
    code, out, err = run("submissions", "--limit", "2")
    assert (code, err) == (0, "There may be more: --before 2\n")
    assert [line.split()[0] for line in out.splitlines()] == ["3", "2"]
    assert out.splitlines()[0] == "    3  needs_review  transformers:olmo3 · LORA · default · by ada"
    assert run("submissions", "--before", "2")[1].split()[0] == "1"
    (only,) = json.loads(run("submissions", "--name", "olmo2", "--submitter", "ada", "--json")[1])["submissions"]
    assert only["id"] == 2


# --- deciding ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("checker")
def test_from_a_submission_to_a_lookup_and_back(run, tokens, registry):
    """Submitted, checked, not reviewed by its author, approved by another, looked up, yanked, restored."""
    registry.add_scan(make_scan("olmo2"))
    own = tokens["eve"]
    run("submit", ONE, token=own)
    code, _, err = run("review", "1", "--approve", "--comment", "Mine.", token=own)
    assert code == 2
    assert "Submission 1 is eve's own: another person has to review it." in err
    code, _, err = run("review", "1", "--approve", "--comment", "Please.", token=tokens["ada"])
    assert (code, "only a reviewer or an admin reviews" in err) == (2, True)
    code, out, _ = run("review", "1", "--approve", "--comment", "Like every decoder.", token=tokens["bob"])
    assert code == 0
    assert out.startswith(
        "submission 1, published: transformers:olmo2 · LORA · default · by eve\nIt is mapping sha256:"
    )
    mapping_id = json.loads(run("submission", "1", "--json")[1])["mapping_id"]
    assert "review          bob: approve. Like every decoder." in run("submission", "1")[1]
    assert "source          community submission-1, revision 1" in run("lookup", "olmo2")[1]
    short = mapping_id.removeprefix("sha256:")[:8]
    code, out, _ = run("yank", short, "--reason", "A mistake.", token=tokens["bob"])
    assert code == 0
    assert out.startswith("transformers:olmo2 · LORA · default · community revision 1 is yanked: A mistake.\n")
    assert "source          scanner" in run("lookup", "olmo2")[1]
    assert "was yanked at" in run("yank", short, "--reason", "Again.", token=tokens["bob"])[2]
    restored = json.loads(run("restore", short, "--reason", "None.", "--json", token=tokens["bob"])[1])
    assert (restored["yanked_at"], restored["version"]) == (None, 3)
    assert "source          community" in run("lookup", "olmo2")[1]


@pytest.mark.usefixtures("checker")
def test_a_decision_may_rest_on_a_version(run, tokens):
    """Of what was read; if it changed since, nothing is decided."""
    run("submit", ONE, token=tokens["ada"])
    version = json.loads(run("submission", "1", "--json")[1])["version"]
    rejecting = ("review", "1", "--reject", "--comment", "Not so.", "--json", "--if-match")
    code, out, _ = run(*rejecting, version + 1, token=tokens["bob"])
    assert (code, json.loads(out)["error"]["code"]) == (2, "stale_version")
    code, out, _ = run(*rejecting, version, token=tokens["bob"])
    assert (code, json.loads(out)["status"], json.loads(out)["reason"]) == (0, "rejected", "Not so.")


@pytest.mark.usefixtures("checker")
def test_a_decision_has_to_be_said(run, tokens):
    """Neither is the default."""
    run("submit", ONE, token=tokens["ada"])
    code, _, err = run("review", "1", "--comment", "Hm.", token=tokens["bob"])
    assert code == 2
    assert "loradar review 1 --approve, or --reject" in err


@pytest.mark.usefixtures("checker")
def test_a_submission_is_withdrawn_by_its_author(run, tokens):
    """And by nobody else but an admin."""
    run("submit", ONE, token=tokens["ada"])
    code, _, err = run("withdraw", "1", "--reason", "Not mine.", token=tokens["bob"])
    assert (code, "Submission 1 is ada's:" in err) == (2, True)
    out = run("withdraw", "1", "--reason", "I was wrong.", token=tokens["ada"])[1]
    assert out == "submission 1, withdrawn: transformers:olmo2 · LORA · default · by ada\n"
    assert "withdrawn       I was wrong." in run("submission", "1")[1]
    assert json.loads(run("submissions", "--json")[1])["submissions"][0]["status"] == "withdrawn"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("", "Give a reason of 1 to 4,000 characters"),
        ("  ", "has 0."),
        ("x" * 4001, "has 4,001."),
        ("a\u202eb", "202E"),
    ],
)
def test_a_reason_can_be_read(run, tokens, reason, words):
    """Something in it shows, and nothing in it hides; the same holds for a comment."""
    for command in (("yank", "00000000", "--reason"), ("withdraw", "1", "--reason"), ("review", "1", "--comment")):
        code, _, err = run(*command, reason, token=tokens["bob"])
        assert (code, words in err) == (2, True), err


@pytest.mark.parametrize("arguments", [("submission", 2**31), ("token", "revoke", 2**63), ("submission", 0)])
def test_a_number_beyond_all_bounds_is_refused(run, arguments):
    """No database has it."""
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Invalid value for" in err


def test_an_id_that_is_none_yanks_nothing(run, tokens):
    """It is told what an id is."""
    code, _, err = run("yank", "llama", "--reason", "x", token=tokens["bob"])
    assert code == 2
    assert "first 8 digits" in err


def test_drift_is_submitted_once(run, checker, registry, monkeypatch):
    """What the catalog knows of PEFT's entries for vit and dinov2, without a scan; the second run opens nothing."""
    monkeypatch.setattr("loradar.discovery.scan_each", pytest.fail)
    named = ("--name", "vit", "--name", "dinov2", "--name", "llama")
    out = run("drift", *named, "--dry-run")[1]
    assert "2 architectures drifted, 0 submissions opened." in out
    assert (registry.submissions.list(), checker.asked) == ((), [])
    code, out, err = run("drift", *named)
    assert code == 0
    assert "transformers:vit · ADAMSS · default\n  wrong    peft 0.21.2 is dead: query matches nothing\n" in out
    assert "done     submission 1, needs_review\n" in out
    assert "2 architectures drifted, 2 submissions opened." in out
    assert err.count("in a worker process") == 2
    opened = registry.submissions.list(origin="drift")
    assert {(one.statement.name, one.submitter, one.status) for one in opened} == {
        ("vit", "loradar-drift", "needs_review"),
        ("dinov2", "loradar-drift", "needs_review"),
    }
    again = json.loads(run("drift", *named, "--json")[1])
    assert [step["submission"] for step in again["drifted"]] == [None, None]
    assert "submission 1 exists (needs_review)" in {step["reason"] for step in again["drifted"]} | {
        "submission 2 exists (needs_review)"
    }
    assert len(registry.submissions.list()) == 2


@pytest.mark.parametrize("limit", ["MAX_OPEN", "MAX_A_DAY"])
def test_drift_that_may_submit_no_more_says_so(run, registry, monkeypatch, limit):
    """What is over a limit is told with the rest, and submitted by a later run."""
    monkeypatch.setattr(submissions, limit, 0)
    code, out, _ = run("drift", "--name", "vit")
    assert (code, registry.submissions.list()) == (0, ())
    assert "1 architecture drifted, 0 submissions opened." in out
    assert "done     loradar-drift " in out


def test_drift_scans_what_was_not_checked(registry, tmp_path):
    """An entry that came with a newer PEFT, of an architecture the library builds in another way.

    In a process of its own, as a user's: what is scanned is forked, and this one has had threads of all sorts.
    """
    source = tmp_path / "constants.py"
    source.write_text('TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING = {"olmo2": ["query_key_value"]}\n')
    registry.add_constants(read_constants(source, "0.99"))
    command = (*["-m", "loradar.cli", "drift", "--name", "olmo2", "--json", "--workers", "1", "--dry-run"],)
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)  # noqa: S603 - ours
    (step,) = json.loads(done.stdout)["drifted"]
    assert step["wrong"][0]["verification"]["findings"] == ["query_key_value matches nothing"]
    assert step["statement"]["target_modules"] == ["q_proj", "v_proj"]
    assert step["statement"]["rationale"].startswith("On transformers ")
