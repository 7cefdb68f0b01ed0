"""What schemathesis is told besides the description of the service; it runs in a process of its own."""

import re
from itertools import count

import schemathesis
from schemathesis import GenerationMode
from schemathesis.cli import schemathesis as main
from schemathesis.generation.meta import TestPhase

__all__ = ["main"]

UNPROCESSABLE = 422
KEY = "Idempotency-Key"
_SOUND = re.compile("[!-~]([ -~]{0,253}[!-~])?")
_numbers = count()


@schemathesis.check
def well_formed_has_no_bad_field(ctx, response, case):  # noqa: ARG001 - as the check is called
    """Refuse a refusal of what the description calls valid, unless it is refused for what it says.

    What was followed from a link is what an answer said, which may be anything; so may a header, which schemathesis
    takes from answers, too.
    """
    meta = case.meta
    if meta is None or meta.generation.mode is not GenerationMode.POSITIVE or meta.phase.name is TestPhase.STATEFUL:
        return
    if response.status_code == UNPROCESSABLE:
        fields = response.json()["error"]["details"].get("fields", ())
        wrong = [field for field in fields if field["field"].startswith(("body", "query")) and not _beyond(field)]
        if wrong:
            message = f"The description allows what the service calls a bad field: {wrong}"
            raise AssertionError(message)


def _beyond(field):
    """Tell whether a description cannot say it: that layers differ in their paths, whatever their shapes."""
    return field["field"].endswith("layers") and "is there twice" in field["problem"]


@schemathesis.hook
def before_call(context, case, kwargs):  # noqa: ARG001 - as the hook is called
    """Let each valid key be a new one: what is sent with one that was spent is rightly refused, and tells nothing."""
    key = (case.headers or {}).get(KEY)
    if isinstance(key, str) and _SOUND.fullmatch(key):
        case.headers[KEY] = f"{key[:200]}{next(_numbers)}"
