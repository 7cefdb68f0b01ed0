"""``/scan``: the page of an unregistered architecture, from a configuration, headers or a repository."""

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from ...domain.mappings import ArchitectureDetail, Mapping
from ...errors import InvalidReference, LoradarError, NotRegistered
from ...registry import Registry, Scanned, unpack_scan
from ...schema import to_json
from ...weights.sent_files import MOST_FILES
from ..dependencies import OpenRegistry
from ..middleware import LARGEST_SCAN
from ..routes.scan import count_scan
from ..uploads import ScanForm, read_scan_form
from .architecture.overview import ChoiceQuery, explain_untargeted, gather
from .rendering import PageRouter, fresh_page, join_link, page

if TYPE_CHECKING:
    from ..kept_scans import KeptScans

SCAN = "loradar.sandbox.tasks:scan_to_keep"
"""Named, not imported: it imports torch, in the worker."""

HUBS = r"^(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?:models/)?|^hf://|^hub:"
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?:@[\w./-]+)?", re.ASCII)

router = PageRouter()


@router.page("/scan", twin="/v1/scan")
def show_form(request: Request, reference: str = "") -> Response:
    """Return the form; the query may name the model to scan, as from a search that found nothing."""
    return page(request, "scan.html", form=ScanForm(reference=reference[:300]), error=None, **_limits())


def _limits() -> dict[str, Any]:
    return {"most_files": MOST_FILES, "most_bytes": LARGEST_SCAN}


@router.post("/scan")
async def scan_form(request: Request) -> Response:
    """Scan the model in the form, and go to its page; to that of a registered architecture, if the form names one."""
    form = ScanForm()
    try:
        count_scan(request)
        form = await read_scan_form(request)
        registry: Registry = await run_in_threadpool(request.app.state.registry.get)
        return await run_in_threadpool(_scan, request, registry, form)
    except LoradarError as error:
        context = {"form": form, "error": error, **_limits()}
        return fresh_page(request, "scan.html", status_code=HTTPStatus(error.status), **context)


def _scan(request: Request, registry: Registry, form: ScanForm) -> Response:
    contents = form.list_contents()
    sent: dict[str, Any] = {"files": contents}
    if form.reference:
        known, hub = find_known(registry, form.reference)
        if known:
            return _go_to(request, "architectures", known.library, known.name)
        sent = {"reference": hub}
    kept: KeptScans = request.app.state.kept_scans
    packed: bytes = request.app.state.workers.get_scans().run(SCAN, sent)
    return _go_to(request, "scan", kept.keep(packed), model=sent.get("reference", "").removeprefix("hub:"))


def find_known(registry: Registry, text: str) -> tuple[Mapping | None, str]:
    """Return the registered architecture that a text names for certain, else the reference of a repository to scan.

    Raises:
        NotRegistered: If it is neither; lists near names.
    """
    if not text.startswith("hub:"):
        try:
            found = registry.lookup(text)
        except LoradarError as error:
            unknown = error
        else:
            if not (found.understood and found.understood.is_guess):
                return found, ""
            unknown = NotRegistered(text, (), f"No architecture is called {text!r}.")
    repo = re.sub(HUBS, "", text, flags=re.IGNORECASE)
    if _REPO.fullmatch(repo):
        return None, f"hub:{repo}"
    if text.startswith("hub:"):
        raise InvalidReference(f"{text[:100]!r} names no repository. Write it as 'org/repo'.", reference=text[:100])
    raise unknown


def _go_to(request: Request, path: str, *parts: str, model: str = "") -> Response:
    target = join_link(str(request.scope.get("root_path", "")), f"/{path}", *parts, model=model or None)
    return RedirectResponse(target, HTTPStatus.SEE_OTHER, {"Cache-Control": "no-store"})


@router.page("/scan/{scan_id}", twin="/v1/scan/{scan_id}")
def show_scan(request: Request, registry: OpenRegistry, scan_id: str, choice: ChoiceQuery) -> Response:
    """Return the page of a scan that was made here."""
    scanned = unpack_scan(request.app.state.kept_scans.get(scan_id))
    try:
        detail = scanned.detail
        own: dict[str, Any] = {"scanned": scanned, "registered": find_registered(registry, detail)}
        if not detail.mappings:  # nothing to choose
            return fresh_page(request, "architecture/untargeted.html", **own, **explain_untargeted(detail))
        context, error = gather(scanned.registry, detail, choice)
        alike = registry.list_alike(detail.architecture)
        context |= own | {
            "own_path": ("/scan", scan_id),
            "alike": [each for each in alike if each.fingerprint == detail.architecture.fingerprint][:8],
            "statement": write_statement(detail, context["mapping"], scanned),
        }
        status = HTTPStatus(error.status) if error else HTTPStatus.OK
        return fresh_page(request, "scanned.html", status_code=status, **context)
    finally:
        scanned.registry.close()


def find_registered(registry: Registry, detail: ArchitectureDetail) -> ArchitectureDetail | None:
    """Return the registered architecture of this name."""
    own = detail.architecture
    try:
        return registry.get_architecture(own.library, own.name)
    except LoradarError:
        return None


def write_statement(detail: ArchitectureDetail, mapping: Mapping, scanned: Scanned) -> dict[str, str]:
    """Return the fields of the form of a submission; with the layers where its library does not build it."""
    own = detail.architecture
    spec = to_json(mapping.spec)
    fields = {
        name: "\n".join(value) if isinstance(value, list) else value
        for name in ("target_modules", "exclude_modules", "modules_to_save", "target_parameters", "feedforward_modules")
        if (value := spec.get(name))
    }
    fields |= {"library": own.library, "name": own.name, "peft_type": mapping.peft_type, "preset": mapping.preset}
    return fields if detail.method == "dataflow" else {**fields, "layers": scanned.layers}
