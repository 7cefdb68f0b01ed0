"""The site of files: every link leads to a file or is none, and each page is what the service renders."""

import json
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from loradar.api.site import write_site
from loradar.api.site.paths import Address, SitePaths
from loradar.errors import InvalidRequest, UnknownArchitecture

SOME = ("transformers:llama", "transformers:gpt2", "timm:resnet50", "transformers:apertus1p5_vision_tokenizer")
"""The last has no default targets of any method, and its page says why."""


class Links(HTMLParser):
    """The links of a page, and the ids that it has."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.names = [], set(), []
        self.feed(text)

    def handle_starttag(self, _tag, attrs):
        """Keep what leads elsewhere."""
        own = dict(attrs)
        self.ids.add(own.get("id"))
        self.links += [own[name] for name in ("href", "src", "action", "formaction") if own.get(name)]
        self.names += own


@pytest.fixture(scope="module")
def site(read_only_settings, tmp_path_factory):
    """A site of three architectures."""
    folder = tmp_path_factory.mktemp("site") / "out"
    written = list(write_site(read_only_settings, folder, SOME))
    assert sum(each.is_architecture for each in written) == len(SOME)
    assert len({each.file for each in written}) == len(written)
    return folder


@pytest.fixture(scope="module")
def read_only_settings(seeded, tmp_path_factory):
    """Settings of a registry that is not written to."""
    from loradar.settings import Settings  # noqa: PLC0415

    return Settings(tmp_path_factory.mktemp("home"), f"sqlite:///{seeded}")


def test_every_link_leads_to_a_file(site):
    """Relative to the page, with its fragment; links out of the site are those to papers and projects."""
    pages = [*site.rglob("*.html")]
    assert len(pages) > 15
    for page in pages:
        found = Links(page.read_text("utf-8"))
        for link in found.links:
            parts = urlsplit(link)
            if parts.scheme:
                assert parts.scheme in {"https", "data"}, (page, link)
                continue
            assert not parts.path.startswith("/"), (page, link)
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.is_file(), (page, link)
            if parts.fragment and target == page:
                assert parts.fragment in found.ids, (page, link)


def test_what_needs_a_service_is_no_link(site):
    """Chips of other presets, the scan and the sign-in stay as text; forms that nobody answers are marked."""
    text = (site / "architectures/transformers/llama.html").read_text("utf-8")
    assert 'data-off="needs the service"' in text
    assert "/login" not in " ".join(Links(text).links)


def test_with_a_service_they_lead_there():
    """At its address."""
    paths = SitePaths(SOME, "https://loradar.example/base/")
    html, linked = paths.rewrite('<a href="/scan?x=1&amp;y=2">a</a><a href="/audit#dead">b</a>', "compare/index.html")
    assert html == (
        '<a href="https://loradar.example/base/scan?x=1&amp;y=2">a</a><a href="../audit/index.html#dead">b</a>'
    )
    assert linked == [Address("/audit")]


def test_the_json_of_a_page_is_a_file_too(site):
    """As the service sends it."""
    detail = json.loads((site / "v1/architectures/timm/resnet50.json").read_text("utf-8"))
    assert detail["architecture"]["name"] == "resnet50"
    page = (site / "architectures/timm/resnet50.html").read_text("utf-8")
    assert "../../v1/architectures/timm/resnet50.json" in Links(page).links


def test_the_index_of_the_search_has_every_name(site):
    """Of the architectures that the site has: names, classes and checkpoints."""
    text = (site / "search-index.js").read_text("utf-8")
    index = json.loads(text.removeprefix("self.loradarIndex=").rstrip().removesuffix(";"))
    names = {(library, name): others for library, name, *others in index}
    assert names.keys() == {tuple(reference.split(":")) for reference in SOME}
    assert "LlamaForCausalLM" in names["transformers", "llama"]


def test_a_second_site_replaces_the_first_and_nothing_else(tmp_path, read_only_settings):
    """A folder with other files is left alone; so is the old site, if the new one fails."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own/thesis.txt").write_text("mine", "utf-8")
    with pytest.raises(InvalidRequest, match="not empty"):
        list(write_site(read_only_settings, tmp_path / "own", SOME))
    with pytest.raises(UnknownArchitecture):
        list(write_site(read_only_settings, tmp_path / "new", ("transformers:lama",)))
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("/", "index.html"),
        ("/architectures", "architectures/index.html"),
        ("/architectures?library=timm", "architectures/index.library-timm.html"),
        ("/architectures?q=x", None),
        ("/architectures/transformers/llama", "architectures/transformers/llama.html"),
        ("/architectures/transformers/llama?preset=mlp", None),
        ("/architectures/transformers/bert", None),
        ("/architectures/transformers/..%2F..%2Fetc", None),
        ("/v1/architectures/transformers/llama", "v1/architectures/transformers/llama.json"),
        ("/audit?verdict=dead", "audit/index.verdict-dead.html"),
        ("/audit?q=x", None),
        ("/compare?a=llama&b=qwen3_moe", "compare/index.a-llama-b-qwen3_moe.html"),
        ("/compare?a=llama&b=bert", None),
        ("/scan", None),
        ("/submissions/1", None),
        ("/v1/mappings", None),
    ],
)
def test_a_page_has_one_file_or_none(address, file):
    """By its path and query."""
    assert SitePaths(SOME).file_of(Address.parse(address)) == file


def test_odd_names_make_no_odd_files():
    """What a file system or a link could not take is replaced, and told apart by a digest."""
    names = ("a b", "a/b", "..", "a:b", "é")
    paths = SitePaths([f"torch:{name}" for name in names])
    files = [paths.file_of(Address(f"/architectures/torch/{name.replace('/', '%2F')}")) for name in names]
    assert len({*files}) == len(names)
    for file in files:
        assert Path(file).parent == Path("architectures/torch")
        assert file.isascii()
        assert not Path(file).name.startswith(".")
