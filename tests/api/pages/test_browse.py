"""Browse: filters as links with their counts, and pages."""

import re


def test_filters_are_links_with_counts(read):
    """A filter in use can be removed; the name is a form."""
    page = read("/architectures?library=transformers&engine=vllm")
    assert re.search(r"1\d\d architectures", page.text)
    links = {own["href"] for own in page.all("a") if "href" in own}
    assert "/architectures?library=transformers" in links
    assert "/architectures?library=transformers&status=live&engine=vllm" in links
    assert "/architectures/transformers/afmoe" in links
    assert page.all("input", type="hidden", name="engine", value="vllm")


def test_pages_follow_each_other(read, client):
    """By links, as those of the twin."""
    page = read("/architectures?library=diffusers")
    following = next(own["href"] for own in page.all("a", rel="next"))
    second = read(following)
    assert second.all("a", href="/architectures?library=diffusers")
    names = [own["href"] for each in (page, second) for own in each.all("a") if "/diffusers/" in own.get("href", "")]
    twin = client.get("/architectures?library=diffusers&limit=200").json()["architectures"]
    assert [name.rpartition("/")[2] for name in names] == [one["architecture"]["name"] for one in twin][: len(names)]
    assert len(names) == 120


def test_nothing_found_says_so(read, client):
    """A value that does not exist is an error, in both."""
    assert "Nothing has all of these properties" in read("/architectures?q=no-such-name").text
    assert "is one of" in read("/architectures?task=cooking", status=404).text
    assert client.get("/v1/architectures?task=cooking").json()["error"]["details"]["field"] == "query.task"
    assert client.get("/v1/architectures?status=nice").status_code == 422


def test_a_layer_leads_to_all_that_have_it(read):
    """As the search offers it."""
    assert read("/search?q=q_proj").all("a", href="/architectures?layer=q_proj")
    assert "with a layer named Wqkv" in read("/architectures?layer=Wqkv").text
