"""Statements as they are sent: what is taken, what is refused, and that a refusal names the field and the way out."""

import json
import re

import pytest

from loradar.domain.submissions import MOST_LAYERS, ListedLayer, Statement
from loradar.domain.targets import TargetSpec
from loradar.errors import InvalidStatement
from loradar.schema import to_json
from loradar.validation.statements import EXAMPLE, StatementBody, parse_statements
from loradar.validation.text import TARGET_PATTERN, explain_invalid_target, explain_invalid_text

BODY = {"name": "olmo2", "target_modules": ["q_proj", "v_proj"]}


def parse(**fields):
    """Return the one statement of the usual body with these fields."""
    (statement,) = parse_statements({**BODY, **fields})
    return statement


def refusal(**fields):
    """Return why the usual body with these fields is refused."""
    with pytest.raises(InvalidStatement) as caught:
        parse(**fields)
    assert "\n" not in caught.value.message
    return caught.value


def test_a_body_becomes_a_statement():
    """Every field arrives; what is left out has the value most people mean."""
    assert parse() == Statement("transformers", "olmo2", "LORA", "default", ("q_proj", "v_proj"))
    layers = [{"path": "blocks.0.fc", "shape": [4, 4], "class": "Linear"}, {"path": "head", "shape": [2, 4]}]
    full = parse(
        library="torch",
        name="my.Net",
        peft_type="ia3",
        preset="mlp",
        target_modules=r".*\.fc",
        exclude_modules=["head.fc"],
        modules_to_save=["head"],
        target_parameters=["experts.down_proj"],
        feedforward_modules=["fc"],
        rationale="It has\n\tno attention: Müller et al.",
        layers=layers,
    )
    spec = TargetSpec(r".*\.fc", ("head.fc",), ("head",), ("experts.down_proj",), ("fc",))
    listed = (ListedLayer("blocks.0.fc", (4, 4), "Linear"), ListedLayer("head", (2, 4)))
    assert full == Statement(
        "torch", "my.Net", "IA3", "mlp", **spec.stored, rationale="It has\n\tno attention: Müller et al.", layers=listed
    )


def test_a_statement_is_its_own_body():
    """What was sent can be sent again."""
    statement = parse(layers=[{"path": "a.b", "shape": [1, 2]}])
    assert parse_statements(json.loads(json.dumps(to_json(statement)))) == (statement,)


def test_the_shorthand_is_a_statement_per_key():
    """As in PEFT's constants.py."""
    found = parse_statements({"olmo2": ["q_proj", "v_proj"], "my-model.v2": ["qkv"]})
    assert [(s.name, s.peft_type, s.preset, s.library) for s in found] == [
        ("olmo2", "LORA", "default", "transformers"),
        ("my-model.v2", "LORA", "default", "transformers"),
    ]
    assert found[1].spec.target_modules == ("qkv",)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "is no statement"),
        ("olmo2", "is no statement"),
        ({}, "has 0 statements"),
        ({f"a{n}": ["q"] for n in range(65)}, "has 65 statements; 1 to 64"),
        ({"nam": "olmo2", "targets": ["q_proj"]}, "It is missing"),
        ({"olmo2": []}, "this one has 0"),
        ({1: ["q"]}, "valid string"),
    ],
)
def test_what_is_no_statement_is_refused(data, says):
    """A body with a misspelt field is not taken for the shorthand."""
    with pytest.raises(InvalidStatement, match=says) as caught:
        parse_statements(data, source="olmo2.toml")
    assert caught.value.message.startswith("olmo2.toml")


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", "\u043elmo2", r"holds '\u043e' \(U\+043E\)"),
        ("name", "olmo2\u202e", r"\(U\+202E\)"),
        ("name", "olmo2\n", r"\(U\+000A\)"),
        ("name", "../../etc/passwd", r"holds '/' \(U\+002F\)"),
        ("name", "a..b", "cannot be a name"),
        ("name", ".hidden", "cannot be a name"),
        ("name", "x'; DROP TABLE mappings; --", r"U\+0027"),
        ("name", "", "1 to 255 characters"),
        ("name", "a" * 256, "this one has 256"),
        ("library", "keras", "'transformers', 'timm'"),
        ("preset", "most", "'default', 'recommended', 'attention'"),
        ("peft_type", "lore", "Closest: 'LORA'"),
        ("peft_type", "PROMPT_TUNING", "names no layers"),
        ("target_modules", [], "this one has 0"),
        ("target_modules", ["q"] * 2, "'q' is there twice"),
        ("target_modules", [f"t{n}" for n in range(513)], "this one has 513"),
        ("target_modules", ["q" * 256], "one here has 256"),
        ("target_modules", ["0"], "bare index"),
        ("target_modules", ["0.1"], "bare index"),
        ("target_modules", ["a..b"], "empty segment"),
        ("target_modules", [".*_proj"], r"holds '\*'.*one string"),
        ("target_modules", ["q_\u0440roj"], r"U\+0440"),
        ("target_modules", [1], "not a int"),
        ("target_modules", 7, "list of names, or one regex"),
        ("target_modules", "", "1 to 4096"),
        ("target_modules", "x" * 4097, "this one has 4097"),
        ("target_modules", "q_\u0440roj", r"U\+0440"),
        ("target_modules", "all-linear", "PEFT's word"),
        ("target_modules", None, "names no layer"),
        ("modules_to_save", "classifier", "list of names"),
        ("rationale", "a\x00b", r"\(U\+0000\)"),
        ("rationale", "a\u202eb", r"\(U\+202E\)"),
        ("rationale", "a" * 4001, "4000"),
        ("layers", [], "at least 1"),
        ("layers", [{"path": "a b", "shape": [1]}], r"U\+0020"),
        ("layers", [{"path": "a.", "shape": [1]}], "empty segment"),
        ("layers", [{"path": "a", "shape": [0]}], "greater than or equal to 1"),
        ("layers", [{"path": "a", "shape": []}], "at least 1"),
        ("layers", [{"path": "a", "shape": [2**40]}], "less than or equal"),
        ("layers", [{"path": "a", "shape": [True]}], "valid integer"),
        ("layers", [{"path": "a", "shape": [1]}] * 2, "'a' is there twice"),
        ("layers", [{"path": "a", "shape": [1], "klass": "x"}], "There is no such field"),
        ("target_module", ["q"], "Fields: 'library', 'name'"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_bad_field_is_refused(field, value, says):
    """The message says what is wrong with it, and names it, and the odd character in it."""
    refused = refusal(**{field: value})
    assert refused.details["field"].startswith(field) or "names no layer" in says
    assert re.search(says, refused.message)


def test_too_many_layers_are_refused():
    """One more than the bound."""
    layer = {"path": "a", "shape": [1]}
    assert str(MOST_LAYERS) in refusal(layers=[{**layer, "path": f"a{n}"} for n in range(MOST_LAYERS + 1)]).message


def test_braces_in_what_is_refused_are_no_template():
    """A message is not formatted a second time."""
    assert "'{message}'" in refusal(target_modules=["{message}"]).message


def test_the_schema_says_what_is_checked():
    """What api/ serves: closed objects, patterns, descriptions and an example that is taken."""
    schema = StatementBody.model_json_schema()
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["LayerBody"]["additionalProperties"] is False
    assert all("description" in field for field in schema["properties"].values())
    assert "PROMPT_TUNING" not in schema["properties"]["peft_type"]["enum"]
    assert schema["examples"] == [EXAMPLE]
    assert parse_statements(EXAMPLE)[0].name == "olmo2"


@pytest.mark.parametrize(
    "target", ["q", "q_proj", "mlp.0", "0.mlp", "layers.0.q", "a-b", "-", "0a", "0", "1.2", "a..b", ""]
)
def test_the_pattern_of_targets_agrees_with_the_check(target):
    """A client that validates by the schema is refused nothing else, and sends nothing else."""
    assert bool(re.search(TARGET_PATTERN, target)) == (explain_invalid_target(target) is None)


def test_text_with_accents_and_emoji_shows():
    """Only what does not show is refused."""
    assert explain_invalid_text("Größe, 大, 😀, a\tb\nc") is None
    assert all(
        explain_invalid_text(f"a{character}b") for character in "\x7f\x85\xad\u200b\u2028\u2063\u2066\ufeff\r\udcff"
    )
