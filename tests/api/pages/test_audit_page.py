"""``/audit``: each entry of PEFT with what is wrong with it, by version, filtered; the twin has the same entries."""

import pytest

from loradar.domain.reports.audits import AuditReport, find_defect
from loradar.schema import from_json


def report(client, query=""):
    """Return the JSON twin."""
    response = client.get(f"/v1/audit{query}")
    assert response.status_code == 200, response.text
    return from_json(AuditReport, response.json())


def names_of(page):
    """Return the model types of a page's entries, as their links have them."""
    links = [own["href"] for own in page.all("a") if "/architectures/transformers/" in own.get("href", "")]
    return {href.rpartition("/")[2] for href in links}


def test_the_newest_versions_are_shown_worst_first(client, read):
    """With the suggestion beside the entry."""
    page, twin = read("/audit"), report(client)
    assert page.text.index("trains nothing") < page.text.index("trains fewer or other layers")
    assert twin.entries[0].verdict == "dead"
    assert sum(twin.totals.values()) == sum(len(entry.peft_types) for entry in twin.entries)
    dinov2 = next(entry for entry in twin.entries if (entry.name, entry.verdict) == ("dinov2", "dead"))
    assert (dinov2.defects, dinov2.suggestion.target_modules) == (("no-match",), ("q_proj", "v_proj"))
    assert "query matches nothing" in page.text
    assert names_of(page) == {entry.name for entry in twin.entries if entry.is_registered}


def test_an_older_version_has_its_own_verifications(client, read):
    """Mixtral's w1 is a layer of transformers 4 and none of transformers 5."""
    newest, older = (report(client, query) for query in ("?q=mixtral", "?q=mixtral&library_version=4.57.1"))
    assert "partial" in {entry.verdict for entry in newest.entries}
    assert "w2 matches nothing" in str([entry.findings for entry in newest.entries])
    assert "w2 matches nothing" not in str([entry.findings for entry in older.entries])
    assert "w2 matches nothing" not in read("/audit?q=mixtral&library_version=4.57.1").text


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?verdict=dead", lambda entry: entry.verdict == "dead"),
        ("?defect=other-tower", lambda entry: "other-tower" in entry.defects),
        ("?peft_type=ia3&verdict=partial", lambda entry: "IA3" in entry.peft_types and entry.verdict == "partial"),
        ("?q=LLAMA", lambda entry: "llama" in entry.name),
    ],
)
def test_a_filter_keeps_what_it_names(client, read, query, expected):
    """On the page and in the twin alike; the totals stay."""
    whole, found = report(client), report(client, query)
    assert found.entries == tuple(filter(expected, whole.entries))
    assert found.totals == whole.totals
    assert names_of(read(f"/audit{query}")) == {entry.name for entry in found.entries if entry.is_registered}


def test_every_finding_on_record_has_a_kind(client):
    """Of all of PEFT's entries, on every version; else a filter would hide it."""
    for version in report(client).library_versions:
        checked = [entry for entry in report(client, f"?library_version={version}").entries if entry.verification]
        assert checked
        assert all(find_defect(finding) for entry in checked for finding in entry.findings)


def test_a_form_s_empty_fields_are_left_out_of_the_address(client):
    """So that the link to the twin holds, and each choice is stored once."""
    sent = "/audit?library_version=5.24.0&defect=&peft_type=&q=+"
    response = client.get(sent, headers={"Accept": "text/html"}, follow_redirects=False)
    assert (response.status_code, response.headers["Location"]) == (303, "/audit?library_version=5.24.0")


@pytest.mark.parametrize("query", ["?verdict=bad", "?defect=x", "?library_version=9.9", "?peft_version=0.1"])
def test_a_filter_that_does_not_exist_is_named_above_the_whole_audit(client, read, query):
    """404 for programs too."""
    page = read(f"/audit{query}", 404)
    assert "That choice does not work here" in page.text
    assert len(names_of(page)) > 10
    assert client.get(f"/v1/audit{query}").status_code in {404, 422}


def test_nothing_left_says_so(read):
    """With the way back."""
    page = read("/audit?q=nobody-has-this")
    assert "No entry passes" in page.text
    assert page.all("a", href="/audit")
