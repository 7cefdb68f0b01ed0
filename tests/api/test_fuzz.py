"""The service held to its own description, briefly; ``make fuzz`` does it at length."""

from fuzz_api import fuzz


def test_every_answer_is_as_described(tmp_path, seeded):
    """Examples, the corners of every schema, random requests and chains of them: no failure inside, no other shape.

    But for scans, which take a worker each: they are for the long run. How many requests fit into the time is the
    machine's affair.
    """
    brief = ("--max-examples", "3", "--max-time", "8", "--seed", "7", "--exclude-path", "/v1/scan")
    report = fuzz(tmp_path, *brief, registry=seeded)
    assert report.code == 0, report.text[-8000:]
    assert report.cases > 0
