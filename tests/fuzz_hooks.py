"""What schemathesis is told besides the description of the service; it runs in a process of its own."""

import re
from itertools import count

import schemathesis
from schemathesis import GenerationMode
from schemathesis.cli import schemathesis as main

__all__ = ["main"]

UNPROCESSABLE = 422
KEY = "Idempotency-Key"
_SOUND = re.compile("[!-~]([ -~]{0,253}[!-~])?")
_numbers = count()


@schemathesis.check
def well_formed_has_no_bad_field(ctx, response, case):  # noqa: ARG001 - as the check is called
    """Refuse a refusal of what the description calls valid, unless it is refused for what it says."""
    is_valid = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
    if is_valid and response.status_code == UNPROCESSABLE:
        error = response.json()["error"]
        if "fields" in error["details"]:
            message = f"The description allows what the service calls a bad field: {error['message']}"
            raise AssertionError(message)


@schemathesis.hook
def before_call(context, case, kwargs):  # noqa: ARG001 - as the hook is called
    """Let each valid key be a new one: what is sent with one that was spent is rightly refused, and tells nothing."""
    key = (case.headers or {}).get(KEY)
    if isinstance(key, str) and _SOUND.fullmatch(key):
        case.headers[KEY] = f"{key[:200]}{next(_numbers)}"
