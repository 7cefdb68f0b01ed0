"""The page of an architecture: the answer first, its cost to the parameter, the tree, and text that stays text."""

import re
from pathlib import Path
from urllib.parse import quote

import pytest
from records_zoo import make_scan, proposal
from starlette.testclient import TestClient

from loradar.api import create_app
from loradar.api.pages.architecture.answer import Answer, Choice
from loradar.api.pages.assets import path_of
from loradar.domain.explaining.module_tree import make_tree
from loradar.domain.layers import Slot
from loradar.domain.vocabulary import describe_bytes
from loradar.registry import Registry

BROWSER = {"Accept": "text/html"}
STATIC = Path(__file__).parents[3] / "api" / "pages" / "static"


@pytest.fixture
def opened(read_settings):
    """An open registry that is only read."""
    with Registry.open(read_settings) as registry:
        yield registry


def chips(page):
    """Return the links of a page's choices by their text's query."""
    return [own["href"] for own in page.all("a", **{"class": "chip"})]


def test_the_recommended_targets_come_first(read):
    """With the stamp of their proof, and its extent."""
    page = read("/architectures/transformers/qwen2_5_vl")
    answer = page.text.index(
        'target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]'
    )
    assert page.text.index("qwen2_5_vl", page.text.index("Qwen2_5_VL")) < answer < page.text.index("What it costs")
    assert page.text.index("Proved live on transformers 5.24.0") < page.text.index("80 of 80 language blocks") < answer


def test_programs_get_the_twin_at_the_same_path(client):
    """As at /v1."""
    own, twin = "/architectures/transformers/llama", "/v1/architectures/transformers/llama"
    assert client.get(own).json() == client.get(twin).json()
    assert f'type="application/json" href="{twin}"' in client.get(own, headers=BROWSER).text
    assert client.get("/architectures/transformers/lama").json()["error"]["details"]["near"][0] == "llama"


def test_choices_are_links_that_lead_to_what_they_say(read):
    """Preset, towers, method and server; a choice is marked, and keeps the others."""
    page = read("/architectures/transformers/qwen2_5_vl?preset=default&server=vllm")
    here = "/architectures/transformers/qwen2_5_vl"
    assert {f"{here}?server=vllm", f"{here}?preset=default", f"{here}?method=IA3"} <= set(chips(page))
    assert f"{here}?preset=default&towers=vision&server=vllm" in chips(page)
    marked = [own["href"] for own in page.all("a", **{"aria-current": "true"})]
    assert f"{here}?preset=default&server=vllm" in marked
    assert '["q_proj", "v_proj"]' in read(f"{here}?preset=default").text
    assert "feedforward_modules" in read(f"{here}?method=IA3").text


def test_a_tower_without_adapters_can_be_added(read):
    """The bar says so, and its link adapts both."""
    page = read("/architectures/transformers/qwen2_5_vl")
    assert re.search(r"vision\s+0 of 32", page.text)
    link = next(own["href"] for own in page.all("a") if "towers=language%2Cvision" in own.get("href", ""))
    wider = read(link)
    assert re.search(r"vision\s+32 of 32", wider.text)
    assert re.search(r"language\s+80 of 80", wider.text)


@pytest.mark.filterwarnings("ignore:.*rank_pattern keys:RuntimeWarning")  # of peft, though it keeps those of parameters
@pytest.mark.parametrize(
    ("reference", "rank"),
    [("transformers:opt", 8), ("transformers:vit", 12), ("transformers:granitemoe", 16)],
)
def test_the_cost_is_that_of_a_real_adapter(opened, read, reference, rank):
    """To the parameter, by PEFT itself on the model of the page, with ranks of single layers and saved modules."""
    torch, peft, transformers = map(pytest.importorskip, ("torch", "peft", "transformers"))
    library, name = reference.split(":")
    detail = opened.get_architecture(library, name)
    answer = Answer(opened, detail, Choice(rank=rank))
    mapping = answer.mapping
    with torch.device("meta"):
        model = getattr(transformers, detail.architecture.class_name)(transformers.AutoConfig.for_model(name))
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in mapping.spec.values.items()}
    known = ("target_modules", "target_parameters", "exclude_modules", "modules_to_save")
    config = peft.LoraConfig(r=rank, rank_pattern=mapping.rank_pattern or {}, **{key: values[key] for key in known})
    adapted = peft.get_peft_model(model, config)
    trained, every = adapted.get_nb_trainable_parameters()
    assert answer.cost.parameters == trained
    page = read(f"/architectures/{library}/{name}?rank={rank}")
    assert f"{trained:,}" in page.text
    assert describe_bytes(sum(p.nbytes for p in adapted.parameters() if p.requires_grad)) == answer.cost.file
    assert answer.cost.file in page.text
    assert every > trained > 0


def test_the_slider_is_a_form_that_keeps_the_choice(read):
    """Without JavaScript it is sent as a query."""
    page = read("/architectures/transformers/llama?preset=default&rank=32")
    assert page.all("input", type="range", name="rank", value="32")
    assert page.all("input", type="hidden", name="preset", value="default")
    assert "16,777,216" in page.text
    form = page.all("form", **{"class": "rank"})[0]
    assert (form["data-per-rank"], form["data-fixed"], form["data-linear"]) == ("524288", "0", "yes")


def test_a_choice_that_does_not_exist_is_said_above_the_recommended_one(read):
    """With its status, so that no one stores it."""
    page = read("/architectures/transformers/llama?towers=vision", status=404)
    assert "transformers:llama has the towers: language" in page.text
    assert '"q_proj", "k_proj"' in page.text
    assert read("/architectures/transformers/llama?method=nonsense", status=404).all("a", **{"class": "chip"})
    assert "Close to it" in read("/architectures/transformers/lama", status=404).text
    unknown = " ".join(read("/architectures/transformers/xyzzyplugh", status=404).text.split())
    assert "Unknown architecture 'xyzzyplugh'. Search for an architecture" in unknown
    assert "loradar list" not in unknown


def test_what_was_never_scanned_has_a_page(read):
    """PEFT's entry, without sizes, modules or verdicts."""
    page = read("/architectures/transformers/chatglm")
    assert '["query_key_value"]' in page.text
    assert "sizes of this adapter are not on record" in page.text
    assert "Modules" not in page.text


def test_what_has_no_targets_says_why(client, read, opened):
    """With its tree; a 404 said that the preset 'default' is close to 'default'."""
    known = [own.architecture for own in opened.list_architectures() if not own.peft_types]
    assert {"apertus1p5_vision_tokenizer", "AutoencoderKLCosmos"} <= {own.name for own in known}
    for own in known:
        page = read(f"/architectures/{own.library}/{own.name}")
        slots = opened.list_slots(own.library, own.name)
        why = {slot.bypassed or slot.proof for slot in slots if slot.kind != "norm" and slot.live is False}
        assert all(reason in page.text for reason in why), own.name
        assert len({row["data-path"] for row in page.all("li") if "data-path" in row}) > 1
        assert "adapted" not in page.text
        badge = client.get(f"/architectures/{own.library}/{own.name}/badge.svg")
        assert (badge.status_code, "no target modules" in badge.text) == (200, True), own.name


def test_without_lora_another_method_comes_first(seeded_settings):
    """A mapping of IA3 alone is one to show."""
    with Registry.open(seeded_settings) as registry:
        registry.add_scan(make_scan("only_ia3", proposals=(proposal("q_proj", peft_type="IA3"),)))
        answer = Answer(registry, registry.get_architecture("transformers", "only_ia3"), Choice())
    assert (answer.method, answer.mapping.peft_type) == ("IA3", "IA3")


@pytest.mark.parametrize(("query", "layers"), [("", 224), ("?preset=default", 64)])
def test_another_mapping_can_be_suggested(read, query, layers):
    """The link fills in the form with the choice that is shown."""
    page = read(f"/architectures/transformers/llama{query}")
    (link,) = [own["href"] for own in page.all("a") if own.get("href", "").startswith("/submissions/new")]
    form = read(link)
    assert form.all("input", name="name", value="llama")
    assert re.search(r"q_proj\s+", form.text)
    assert f"{layers} layers" in re.sub(r"\s+", " ", form.text)


def test_the_tree_counts_every_layer_once(opened):
    """Folded: 128 experts are one branch, and the layers are those of the slots."""
    detail = opened.get_architecture("transformers", "nllb-moe")
    answer = Answer(opened, detail, Choice())
    leaves = [*make_tree(detail.slots, answer.adapted).list_leaves()]
    assert sum(leaf.count for leaf in leaves) == sum(slot.count for slot in detail.slots)
    assert sum(leaf.adapted for leaf in leaves) == answer.mapping.matched
    assert len(leaves) < 50 < len(detail.slots)


def test_the_tree_marks_the_layers_that_match_and_no_others(opened, read):
    """Of a slot whose indices differ in use, such as a sequence of a convolution and its norm, by each index."""
    detail = opened.get_architecture("timm", "resnet50")
    answer = Answer(opened, detail, Choice())
    assert {slot.kind for slot in answer.slots} == {"conv2d"}
    assert sum(answer.adapted) == answer.mapping.matched == 52
    rows = [own for own in read("/architectures/timm/resnet50").all("li") if "downsample" in own.get("data-path", "")]
    assert {own["class"] for own in rows} == {"leaf", "leaf hit"}


def test_a_row_of_which_some_layers_match_has_both_numbers():
    """Not all of its layers are said to be adapted."""
    slot = Slot("main", "other", "linear", "layers.*.fc", 3, live=True, per_rank=6, members="0-2:2")
    tree = make_tree([slot], [2])
    (leaf,) = tree.list_leaves()
    assert (leaf.adapted, leaf.count, tree.summary) == (2, 3, "3 layers, 2 adapted")


def test_shapes_come_from_a_scan_on_request(read, opened):
    """No record holds them; each row of the tree has the path pattern by which a script finds its layers."""
    page = read("/architectures/transformers/nllb-moe")
    form = page.all("form", **{"class": "shapes"})[0]
    assert (form["action"], form["data-scan"]) == ("/scan", "/v1/scan")
    assert page.all("input", type="hidden", name="reference", value="transformers:nllb-moe")
    rows = {own["data-path"] for own in page.all("li") if "data-path" in own}
    assert "model.encoder.layers.*.ffn.experts.expert_*.fc1" in rows
    patterns = [re.compile(re.escape(row).replace(r"\*", r"(?:\*|\d+)")) for row in rows]
    slots = opened.list_slots("transformers", "nllb-moe")
    assert all(any(pattern.fullmatch(slot.pattern) for pattern in patterns) for slot in slots)
    assert not read("/architectures/transformers/chatglm").all("form", **{"class": "shapes"})


def test_few_numbered_siblings_stay_apart():
    """What has names of its own, and what differs in state, is not folded into one."""
    few = [Slot("main", "other", "linear", f"fc{n}", 1, live=True) for n in range(3)]
    many = [Slot("main", "other", "linear", f"up{n}.w", 1, live=n != 7) for n in range(9)]
    tree = make_tree([*few, *many], [0] * 12)
    assert [leaf.name for leaf in tree.leaves] == ["fc0", "fc1", "fc2"]
    assert {(leaf.count, leaf.state) for leaf in tree.branches["up*"].leaves} == {(8, "live"), (1, "dead")}


def test_the_largest_page_is_small(client):
    """With all styles and scripts that there are, as they are sent; nllb-moe has 4,298 modules."""
    paths = ["/architectures/transformers/nllb-moe", *(path_of(file.name) for file in STATIC.iterdir())]
    responses = [client.get(path, headers=BROWSER | {"Accept-Encoding": "gzip"}) for path in paths]
    assert sum(int(response.headers["Content-Length"]) for response in responses) < 60_000


def test_hostile_text_stays_text(seeded_settings):
    """Names, layers and reasons are written by strangers."""
    evil = '"><img/src=x>{{7*7}}'.replace("/", "_")
    layer = "model.layers.0.<script>alert(1)<-script>"
    with Registry.open(seeded_settings) as registry:
        registry.add_scan(make_scan(evil, proposals=(proposal(layer),), class_name="<b>Bold</b>"))
    with TestClient(create_app(seeded_settings)) as client:
        response = client.get(f"/architectures/transformers/{quote(evil, safe='')}", headers=BROWSER)
    assert response.status_code == 200, response.text
    for text in ("<script>alert", "<img", "<b>Bold"):
        assert text not in response.text.replace('<img src="/architectures/', "")
    assert "{{7*7}}" in response.text


def test_a_badge_tells_the_state(client):
    """An image that loads nothing."""
    response = client.get("/architectures/transformers/llama/badge.svg", headers={"Accept": "image/*"})
    assert response.headers["Content-Type"] == "image/svg+xml"
    assert "LoRA proved live, 32 of 32 blocks" in response.text
    assert response.headers["Content-Security-Policy"] == "default-src 'none'"
    assert client.get("/architectures/transformers/none/badge.svg").status_code == 404
