"""The form for a mapping: what its names match, and what becomes of it."""

from itertools import count

import pytest

from loradar.api.pages.people.contributing import parse_layers, split_names, state
from loradar.domain.submissions import Statement
from loradar.errors import InvalidStatement

NUMBERS = count()
NEW = "/submissions/new"


def test_a_form_states_what_a_request_does():
    """Names by spaces, commas and lines; empty fields are left out."""
    fields = {
        "library": "transformers",
        "name": " olmo2 ",
        "peft_type": "lora",
        "preset": "mlp",
        "target_modules": "q_proj, v_proj\nk_proj",
        "exclude_modules": "",
        "rationale": " Why.\n",
        "layers": "",
    }
    expected = Statement("transformers", "olmo2", "LORA", "mlp", ("q_proj", "v_proj", "k_proj"), rationale="Why.")
    assert state(fields) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("q_proj", ["q_proj"]),
        ("self_attn.q_proj mlp.0.up", ["self_attn.q_proj", "mlp.0.up"]),
        (r".*\.(q|v)_proj", r".*\.(q|v)_proj"),
        (r"model\.layers\.\d+\.mlp", r"model\.layers\.\d+\.mlp"),
        ("q_proj,\n(a|b)", ["q_proj", "(a|b)"]),
        ("q proj!", ["q", "proj!"]),
        ("  ", []),
    ],
)
def test_one_line_with_the_characters_of_a_regex_is_one(text, expected):
    """Other text is names, right or wrong."""
    assert split_names(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a.0.up 8x4\nb 16",
        "a.0.up.weight [8, 4]\n\n  b (16,)  ",
        '[{"path": "a.0.up", "shape": [8, 4]}, {"path": "b", "shape": [16]}]',
    ],
)
def test_layers_are_lines_or_json(text):
    """As the header of a file lists them, or as Python prints them."""
    assert parse_layers(text) == [{"path": "a.0.up", "shape": [8, 4]}, {"path": "b", "shape": [16]}]


@pytest.mark.parametrize(
    "text", ["a.0.up", "a 8x", "a 8y4", "a " + " " * 500_000 + "z", "[{", "[" * 2000, "a 8x4 b 3x3"]
)
def test_a_line_without_a_shape_is_named(text):
    """However long it is, at once."""
    with pytest.raises(InvalidStatement) as caught:
        parse_layers(text)
    assert caught.value.details["field"] == "layers"


def test_a_size_beyond_every_bound_is_rejected():
    """And not read in full."""
    with pytest.raises(InvalidStatement, match="layers"):
        state({"name": "a", "target_modules": "up", "layers": "a.up 4x" + "9" * 100_000})


def test_the_query_fills_the_form_in(visit):
    """As links from other pages do; the preview is there at once, for everybody."""
    page = visit().read(f"{NEW}?name=llama&target_modules=q_proj,v_prj&preset=attention")
    assert page.all("input", name="name", value="llama")
    assert page.all("option", selected=None)
    assert "attention.query" in page.text
    assert "matches nothing" in page.text
    assert "v_proj" in page.text
    assert "Sign in" in page.text


def test_a_preview_needs_no_script_and_no_account(visit):
    """The button sends the form, and it comes back as it was, with the layers of each name."""
    person = visit()
    fields = {
        "library": "transformers",
        "name": "qwen2_vl",
        "peft_type": "LORA",
        "preset": "default",
        "rationale": "<b>",
    }
    response = person.post("/submissions/preview", fields | {"target_modules": "qkv q_proj"})
    assert response.status_code == 200
    for expected in (
        "112",
        "vision tower",
        "&lt;b&gt;</textarea>",
        "model.visual.blocks.*.attn.qkv",
        'value="qwen2_vl"',
    ):
        assert expected in response.text
    near = person.post("/submissions/preview", fields | {"name": "LlamaForCausalLM", "target_modules": "q_proj"})
    assert "name=llama" in near.text


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"target_modules": "(a"}, "regex"),
        ({"target_modules": "q_proj q_proj"}, "twice"),
        ({"name": "a b"}, "name"),
        ({"peft_type": "NONE"}, "NONE"),
        ({"layers": "x"}, "shape"),
    ],
)
def test_a_preview_says_what_a_submission_would_be_rejected_for(visit, fields, says):
    """In the words of REST, beside the form as it was."""
    sent = {"name": "llama", "target_modules": "q_proj", "peft_type": "LORA", "preset": "default"} | fields
    response = visit().post("/submissions/preview", sent)
    assert response.status_code == 422
    assert says in response.text
    assert 'role="alert"' in response.text


def test_a_form_is_submitted(service, visit):
    """To its own page, under the name of who is signed in; sent twice, it is one submission."""
    person, name = visit("contributor"), f"formed{next(NUMBERS)}"
    fields = person.fill(person.read(NEW), NEW, name=name, target_modules="q_proj v_proj", rationale="Tried.")
    first, again = person.post(NEW, fields), person.post(NEW, fields)
    assert first.status_code == again.status_code == 303
    assert first.headers["Location"] == again.headers["Location"]
    made = service.client.get(first.headers["Location"]).json()
    assert (made["submitter"], made["status"]) == ("contributor", "checking")
    assert made["statement"]["target_modules"] == ["q_proj", "v_proj"]


def test_a_rejected_form_keeps_what_was_written(visit):
    """With the problem and the field it is in."""
    person = visit("contributor")
    response = person.send(person.read(NEW), NEW, name="llama", rationale="A long story.")
    assert response.status_code == 422
    assert "It names no layer" in response.text
    assert "A long story.</textarea>" in response.text


def test_nobody_submits_without_signing_in(service, visit):
    """The form has no such button; a form sent all the same is rejected."""
    person = visit()
    before = service.client.get("/v1/submissions").json()
    page = person.read(NEW)
    assert "Submit</button>" not in page.html
    login = person.fill(person.read("/login"), "/login")
    response = person.post(NEW, login | {"name": "llama", "target_modules": "q_proj"})
    assert response.status_code == 401
    assert "signed out" in response.text
    assert service.client.get("/v1/submissions").json() == before
