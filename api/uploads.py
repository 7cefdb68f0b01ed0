"""Read forms with files within bounds: parts of a model's files, a pasted configuration, or a reference."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from fastapi import Request
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException

from ..errors import InvalidRequest, NotAllowed
from ..validation.text import shorten
from ..weights.sent_files import MOST_CONFIG_BYTES, MOST_FILES
from .requests import require_uncompressed

MULTIPART = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"

FIELDS = ("text", "reference")
FILE_FIELD = "file"
MOST_FIELDS = 8
NAME_LENGTH = 100
PASTED = "the pasted text"
"""Name of what was pasted, in messages."""


@dataclass(frozen=True)
class ScanForm:
    """A form that asks for a scan.

    Attributes:
        text: A pasted configuration, header or index; empty if none was.
        reference: A repository or an architecture; empty if none was given.
        files: The content of the files by name.
    """

    text: str = ""
    reference: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)

    def list_contents(self) -> dict[str, bytes]:
        """Return the files with the pasted text as one of them.

        Raises:
            InvalidRequest: If there is nothing to scan, or both files and a reference.
        """
        contents = dict(self.files)
        if self.text.strip():
            contents[PASTED] = self.text.encode("utf-8", "surrogatepass")
        if self.reference and contents:
            message = "Both a reference and the files of a model were sent, which may be two models. Send one of them."
            raise InvalidRequest(message, field="reference", files=list(contents))
        if not self.reference and not contents:
            message = "There is nothing to scan: paste a config.json, choose a file, or give a name such as 'org/repo'."
            raise InvalidRequest(message, field="text")
        return contents


def is_form(request: Request) -> bool:
    """Return whether the body of a request is a form."""
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return kind in (MULTIPART, URLENCODED)


async def read_scan_form(request: Request) -> ScanForm:
    """Return the form in the body of a request.

    Raises:
        HTTPException: 415 if the body is compressed, 413 if it is too large.
        NotAllowed: If the form is on a page of another site, which would spend the scans of its visitors.
        InvalidRequest: If it is malformed, or has unknown or repeated fields; names them.
    """
    require_uncompressed(request)
    if request.headers.get("Sec-Fetch-Site") == "cross-site":  # forms need no permission of the browser, unlike JSON
        raise NotAllowed("A form of another site was sent. Send it from the page /scan, or send JSON.")
    try:
        form = await request.form(max_files=MOST_FILES, max_fields=MOST_FIELDS, max_part_size=MOST_CONFIG_BYTES)
    except HTTPException as error:
        if error.status_code != HTTPStatus.BAD_REQUEST:  # of the parser
            raise
        raise InvalidRequest(f"The form cannot be read: {error.detail}", field="body") from None
    try:
        return await _read(form)
    finally:
        await form.close()


async def _read(form: FormData) -> ScanForm:
    texts: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for name, value in form.multi_items():
        if name == FILE_FIELD and not isinstance(value, str):
            content = await value.read()
            if not value.filename and not content:  # a browser's form in which no file was chosen
                continue
            shown = clean_name(value.filename or "")
            if shown in files:
                raise InvalidRequest(f"Two files are called {shown!r}. Send one of each.", field=FILE_FIELD)
            files[shown] = content
        elif isinstance(value, str) and name in FIELDS and name not in texts:
            texts[name] = value
        else:
            message = f"The form has a field {shorten(name)} too many, or of the wrong kind. Send {FILE_FIELD!r} as a"
            raise InvalidRequest(f"{message} file, and 'text' or 'reference' once as text.", field=name[:NAME_LENGTH])
    return ScanForm(texts.get("text", ""), texts.get("reference", "").strip(), files)


def clean_name(name: str) -> str:
    """Return the name of a sent file as it is shown: without folders, of printable ASCII, of bounded length."""
    base = re.split(r"[/\\]", name)[-1]
    return re.sub(r"[^ -~]", "?", base)[-NAME_LENGTH:].strip() or "unnamed"
