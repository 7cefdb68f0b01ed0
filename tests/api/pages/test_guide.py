"""The guide of the service, for people and agents."""

BROWSER = {"Accept": "text/html"}


def test_the_guide_lists_every_route(read, client):
    """As they are described."""
    page = read("/docs")
    for path in client.get("/openapi.json").json()["paths"]:
        assert path in page.text
    assert client.get("/docs").json() == client.get("/openapi.json").json()


def test_agents_get_a_page_of_text(client):
    """With links that lead somewhere, whatever they accept."""
    response = client.get("/llms.txt", headers=BROWSER)
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.text.startswith("# loradar\n\n> ")
    assert "&#" not in response.text
    assert "/v1/targets/X?preset=recommended" in response.text
    mapping = client.get("/v1/targets/Qwen/Qwen3-8B?preset=recommended").json()
    for name in ("target_modules", "rank_pattern", "verification", "formula", "recommended", "served", "understood"):
        assert name in mapping
        assert f"`{name}" in response.text
    assert len(response.content) < 8_000
