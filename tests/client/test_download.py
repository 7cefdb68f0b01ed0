"""Downloads that a service cannot continue."""

import httpx2
import pytest

from loradar.client.download import download

UNSATISFIABLE = 416
"""The status of a range that the file does not have."""


def answer(request):
    """A service that has ``whole``, and no rest of anything."""
    return (
        httpx2.Response(UNSATISFIABLE)
        if "Range" in request.headers
        else httpx2.Response(200, stream=httpx2.ByteStream(b"whole"))
    )


@pytest.fixture
def request_of():
    """A request for the file."""
    return httpx2.Request("GET", "http://service.test/file")


def test_a_rest_that_is_not_there_is_fetched_whole(tmp_path, request_of):
    """The file changed, or was complete: what was kept of it is dropped."""
    out, note = tmp_path / "out", tmp_path / "out.etag"
    out.write_bytes(b"another file, longer")
    note.write_text('"v1"')
    with httpx2.Client(transport=httpx2.MockTransport(answer)) as http:
        assert download(request_of, http, out) is None
    assert out.read_bytes() == b"whole"
    assert not note.exists()


def test_a_range_error_without_a_range_is_an_error(tmp_path, request_of):
    """Of a service, or a proxy before it, that answers so to a plain request."""
    with httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(UNSATISFIABLE))) as http:
        response = download(request_of, http, tmp_path / "out")
    assert response.status_code == UNSATISFIABLE
    assert not [*tmp_path.iterdir()]
