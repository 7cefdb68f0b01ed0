"""The scan of what a request sends, from its bytes to the bytes of the answer: all of it in the worker.

A list of 100,000 layers takes a second to read and to write; the service answers others meanwhile.
"""

import json

from .checking import scan_sent
from .strict_json import parse_json


def answer_scan(body: bytes) -> bytes:
    """Return the JSON of ``loradar scan --json`` for the body of ``POST /v1/scan``.

    Raises:
        InvalidRequest: If the body is no JSON, or no question.
        LoradarError: If what it asks for cannot be scanned.
    """
    return json.dumps(scan_sent(parse_json(body)).to_dict(), separators=(",", ":")).encode()
