"""The tasks of the service's workers: check a statement, and scan the body of a request.

Everything heavy is imported inside the functions, so that the service can import this module. A request is parsed and
its response written in the worker as well: a list of 100,000 layers takes a second for each.
"""

from collections.abc import Mapping as Json
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag

from ..domain.architectures import Architecture
from ..domain.mappings import Mapping
from ..domain.scans import Scan
from ..domain.submissions import Checked, ListedLayer, Statement
from ..domain.vocabulary import Library
from ..errors import (
    InvalidReference,
    InvalidRequest,
    InvalidStatement,
    LoradarError,
    UnknownArchitecture,
    WeightsUnreadable,
    quoted,
)
from ..references import Reference
from ..schema import dump_json
from ..validation.bodies import parse_body
from ..validation.statements import STRICT, LayersField, NameField

KnownBy = Literal["dataflow", "names", "listing"]

LISTABLE = ("transformers", "timm", "diffusers")
"""Libraries that list their architectures; ``torch`` names belong to a user's own code, which is never imported."""

REFERENCE_LENGTH = 300


def precheck(statement: Statement) -> None:
    """Check a statement without a scan: in the process that serves, before it queues the check.

    Raises:
        InvalidStatement: If RE2 rejects a regex, or the architecture cannot be built here and its layers are not
            listed.
        MissingExtra: If there is a regex, and google-re2 is not installed.
    """
    from ..registry.contributions.safe_regex import check_regexes  # noqa: PLC0415 - in the service only

    check_regexes(statement)
    if not statement.layers and not is_buildable(statement.library):
        why = (
            "is a class of somebody's own, which is never imported"
            if statement.library == "torch"
            else f"cannot be built: {statement.library} is not installed with this service"
        )
        message = f"{statement.reference} {why}. Send its 'layers': paths and shapes of its weights."
        raise InvalidStatement(message, field="layers", library=statement.library)


def is_buildable(library: str) -> bool:
    """Return whether the architectures of a library can be built here by name; nothing is imported."""
    return library in LISTABLE and find_spec(library) is not None and find_spec("torch") is not None


def check(statement: Statement, registered: tuple[Mapping, ...] = ()) -> Checked:
    """Scan the architecture of a statement, and gather the evidence on the statement.

    An architecture whose name the installed library lists is built and proved; any other one is known by the layers
    that came with the statement. A statement comes with no code, so none of it is run.

    Args:
        statement: The statement to check.
        registered: Mappings registered for the same query.
    """
    from ..discovery import scan_listing  # noqa: PLC0415
    from ..registry import failure_of, gather_evidence  # noqa: PLC0415

    built: Scan | None = None
    known_by: KnownBy = "listing"
    try:
        precheck(statement)
        if is_buildable(statement.library):
            try:
                built = _scan_listed_name(statement.library, statement.name, proved=True)
                known_by = "dataflow" if built.method == "dataflow" else "names"
            except LoradarError:
                if not statement.layers:
                    raise
        # A listing is stored only after a review.
        architecture = Architecture(statement.library, statement.name)
        scan = built or scan_listing(architecture, statement.layers or ())
        evidence = gather_evidence(scan, statement, registered, known_by)
    except LoradarError as error:
        return Checked(None, error.message, built)
    return Checked(evidence, failure_of(evidence), built)


def _scan_listed_name(library: str, name: str, *, proved: bool) -> Scan:
    """Scan an architecture by a name that the installed library lists.

    Raises:
        UnknownArchitecture: If the library does not list it.
        LoradarError: As ``discovery.scan``.
    """
    from ..discovery import How, list_architectures, scan_named  # noqa: PLC0415

    known = list_architectures(library)
    if name not in known:
        way_out = f"The installed {library} has no such architecture. Send 'layers' if another version has it."
        raise UnknownArchitecture(name, known, way_out, library=library)
    return scan_named(library, name, How(proved=proved))


class ConfigScan(BaseModel):
    """A transformers ``config.json``: its ``model_type`` has to be one that transformers itself knows."""

    model_config = STRICT

    config: dict[str, Any] = Field(
        description="What the file holds; code it names is never loaded", examples=[{"model_type": "olmo2"}]
    )


class LayersScan(BaseModel):
    """A list of layers, as in the header of a weights file: only names and shapes are used."""

    model_config = STRICT

    layers: LayersField
    library: Library = Field("torch", description="Library the architecture belongs to")
    name: NameField = Field("unnamed", description="What to call the architecture")


class ReferenceScan(BaseModel):
    """An architecture by its name, or a repo's ``config.json`` on the hub."""

    model_config = STRICT

    reference: Annotated[str, Field(min_length=1, max_length=REFERENCE_LENGTH, pattern=r"^[!-~]+$")] = Field(
        description="`transformers:NAME`, `timm:NAME`, `diffusers:NAME` or `hub:org/repo[@revision]`",
        examples=["transformers:olmo2"],
    )


def choose_form(body: Any) -> str:
    """Return the form a body is closest to, whose errors are reported: ``layers``, ``reference`` or ``config``."""
    fields = body if isinstance(body, Json) else {}
    return next((field for field in ("layers", "reference") if field in fields), "config")


ScanRequest = Annotated[
    Annotated[ConfigScan, Tag("config")]
    | Annotated[LayersScan, Tag("layers")]
    | Annotated[ReferenceScan, Tag("reference")],
    Discriminator(choose_form),
]
"""The body of ``POST /v1/scan``, in one of its three forms."""


def scan_request(body: bytes) -> bytes:
    """Return the JSON of ``loradar scan --json`` for the body of ``POST /v1/scan``.

    Raises:
        InvalidRequest: If the body is not JSON, or has none of the three forms.
        LoradarError: As the scan.
    """
    way_out = "Send 'config', 'layers' or 'reference'."
    request = parse_body(ScanRequest, body, way_out, is_tagged=True)
    return dump_json(scan_sent(request.model_dump(by_alias=True)))


def scan_files(files: Json[str, bytes]) -> bytes:
    """Return the JSON of ``loradar scan --json`` for the model that sent files describe.

    Args:
        files: The content of a ``config.json``, an index or headers of weights, or its beginning, by name.

    Raises:
        LoradarError: As ``discovery.scan_files``.
    """
    from ..discovery import scan_files as scan  # noqa: PLC0415

    return dump_json(scan(files))


def scan_to_keep(sent: Json[str, Any]) -> bytes:
    """Return the scan of sent files or of a reference, packed as a registry of its own.

    Args:
        sent: ``{"files": {name: content}}`` or ``{"reference": "hub:org/repo"}``.

    Raises:
        LoradarError: As the scan.
    """
    from ..discovery import scan_files  # noqa: PLC0415
    from ..registry import pack_scan  # noqa: PLC0415

    return pack_scan(scan_files(sent["files"]) if "files" in sent else scan_sent(sent))


def fetch_for_others(reference: str) -> dict[str, Any]:
    """Return the ``config.json`` of a repo on the hub, read without a token.

    Raises:
        InvalidReference: If it is no repo.
        HubFailed: If the hub does not give it.
    """
    from ..discovery import fetch_config  # noqa: PLC0415

    return fetch_config(Reference.parse(reference), for_others=True)


def scan_sent(body: Json[str, Any]) -> Scan:
    """Scan the model in the body of ``POST /v1/scan``: a configuration, a list of layers, or a reference.

    Args:
        body: ``{"config": {...}}``, ``{"layers": [...], "library"?, "name"?}`` or ``{"reference": "hub:org/repo"}``;
            layers are in the JSON form of ``ListedLayer``.

    Raises:
        InvalidRequest: If it holds none of them, or a number in it is absurd.
        InvalidReference: If the reference may name arbitrary code or files.
        LoradarError: As the scan.
    """
    from ..discovery import fetch_config, scan_config, scan_listing, scan_stored  # noqa: PLC0415

    if body.get("config") is not None:
        return scan_config(body["config"])
    if body.get("layers") is not None:
        library: Library = body.get("library") or "torch"
        layers = tuple(ListedLayer(each["path"], tuple(each["shape"]), each.get("class")) for each in body["layers"])
        return scan_listing(Architecture(library, body.get("name") or "unnamed"), layers)
    if body.get("reference") is None:
        message = "There is nothing to scan. Send 'config', 'layers' or 'reference'."
        raise InvalidRequest(message)
    reference = Reference.parse(body["reference"])
    if reference.scheme == "hub":
        config = fetch_config(reference, for_others=True)
        try:
            return scan_config(config)
        except UnknownArchitecture as unknown:
            try:
                return scan_stored(str(reference), for_others=True)
            except WeightsUnreadable:
                raise unknown from None
    if reference.scheme not in LISTABLE:
        schemes = ("hub", *LISTABLE)
        message = f"{reference} is not scanned for others: it may be any code or file. Schemes: {quoted(schemes)}."
        raise InvalidReference(message, reference=str(reference), schemes=list(schemes))
    return _scan_listed_name(reference.scheme, reference.name, proved=False)
