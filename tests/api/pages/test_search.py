"""Home and search: from what people type to the page of an architecture, without JavaScript."""

import pytest

BROWSER = {"Accept": "text/html"}


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("Qwen/Qwen3-8B", "/architectures/transformers/qwen3?model=Qwen%2FQwen3-8B"),
        ("LlamaForCausalLM", "/architectures/transformers/llama"),
        ("resnet50.a1_in1k", "/architectures/timm/resnet50"),
    ],
)
def test_one_sure_meaning_leads_straight_to_its_page(client, text, page):
    """The snippets there name the checkpoint."""
    response = client.get("/search", params={"q": text}, headers=BROWSER, follow_redirects=False)
    assert (response.status_code, response.headers["Location"]) == (303, page)
    arrived = client.get(page, headers=BROWSER)
    assert arrived.status_code == 200
    assert "/" not in text or f'"{text}"' in arrived.text.replace("&#34;", '"')


def test_several_meanings_are_listed_with_their_reasons(read):
    """A guess says so; what is not known can be scanned."""
    page = read("/search?q=Wqkv")
    assert "24 layers named 'Wqkv': attention.qkv" in page.text
    assert page.all("a", href="/architectures/transformers/mpt")
    guess = read("/search?q=foo%2Fbart-thing")
    assert "a guess" in guess.text
    assert guess.all("a", href="/scan?reference=hub%3Afoo%2Fbart-thing")
    assert page.all("input", name="q", value="Wqkv")


def test_a_pasted_message_is_explained(read):
    """And what it does not say is asked for."""
    page = read("/search?q=Target+modules+%7B%27x%27%7D+not+found+in+the+base+model")
    assert "None of these target modules is in the model" in page.text
    assert "does not name the model" in page.text


def test_the_twin_is_the_search_of_the_api(client):
    """With the same results."""
    own, twin = (client.get(path, params={"q": "Wqkv"}).json() for path in ("/search", "/v1/search"))
    assert own == twin
    assert twin["total"] == len(twin["results"]) > 5
    assert client.get("/v1/search").json()["results"] == []
    assert client.get("/v1/search", params={"q": "x" * 5000}).status_code == 422


def test_hostile_searches_stay_text(read):
    """In the box and on the page."""
    page = read("/search?q=%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E")
    assert "<script>alert" not in page.html
    assert page.all("input", name="q", value='"><script>alert(1)</script>')


def test_home_shows_what_is_covered_and_proved(read):
    """By library, with one search box and the latest changes."""
    page = read("/")
    assert len(page.all("input", name="q")) == 1
    for library in ("transformers", "timm", "diffusers"):
        assert page.all("a", href=f"/architectures?library={library}")
    assert "with targets proved live" in page.text
    assert "The packaged catalog was stored" in page.text
