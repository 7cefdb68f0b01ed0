"""What runs in the sandbox for a contribution or a scan asked for over REST: everything heavy, imported inside."""

from collections.abc import Mapping as Json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from ..domain.architectures import Architecture
from ..domain.mappings import Mapping
from ..domain.scans import Scan
from ..domain.submissions import Checked, Statement
from ..errors import InvalidReference, InvalidRequest, InvalidStatement, LoradarError, UnknownArchitecture, quoted
from ..references import Reference

if TYPE_CHECKING:
    from ..domain.vocabulary import Library

Known = Literal["dataflow", "names", "listing"]

LISTABLE = ("transformers", "timm", "diffusers")
"""Libraries that say what they hold; ``torch`` names are somebody's own code, which is never imported."""


def precheck(statement: Statement) -> None:
    """Check what can be told without a scan: for the process that serves, before it queues the check.

    Raises:
        InvalidStatement: If a regex is none that RE2 takes, or the architecture cannot be built here and its layers
            are not listed.
        MissingExtra: If there is a regex, and google-re2 is not installed.
    """
    from ..registry.contributions.safe_regex import check_regexes  # noqa: PLC0415 - core reaches the registry in functions alone

    check_regexes(statement.spec)
    if not statement.layers and not is_buildable(statement.library):
        why = (
            "is a class of somebody's own, which is never imported"
            if statement.library == "torch"
            else f"cannot be built: {statement.library} is not installed with this service"
        )
        message = f"{statement.reference} {why}. Send its 'layers': paths and shapes of its weights."
        raise InvalidStatement(message, field="layers", library=statement.library)


def is_buildable(library: str) -> bool:
    """Tell whether the architectures of a library can be built here by their names; nothing is imported."""
    return library in LISTABLE and find_spec(library) is not None and find_spec("torch") is not None


def check(statement: Statement, registered: tuple[Mapping, ...] = ()) -> Checked:
    """Scan the architecture a statement is about, and weigh the statement.

    An architecture that the installed library lists by this very name is built, and proved; any other is known by the
    layers that came with the statement. No code that came with it is run: there is none.

    Args:
        statement: What is stated.
        registered: What answers the same question already.
    """
    from ..registry import failure_of, weigh  # noqa: PLC0415

    try:
        precheck(statement)
        scan, method = _scan(statement)
    except LoradarError as error:
        return Checked(None, error.message)
    built = None if method == "listing" else scan  # what somebody lists is kept nowhere before somebody reviewed it
    try:
        evidence = weigh(scan, statement, registered, method)
    except LoradarError as error:
        return Checked(None, error.message, built)
    return Checked(evidence, failure_of(evidence), built)


def _scan(statement: Statement) -> tuple[Scan, Known]:
    """Return the scan to weigh a statement on, and how its layers are known.

    Raises:
        LoradarError: If the architecture neither builds here nor came with its layers.
    """
    if is_buildable(statement.library):
        try:
            found = _scan_listed_name(statement.library, statement.name, proved=True)
        except LoradarError:
            if not statement.layers:
                raise
        else:
            return found, "dataflow" if found.method == "dataflow" else "names"
    return _scan_layers(statement), "listing"


def _scan_layers(statement: Statement) -> Scan:
    from ..discovery import scan_listing  # noqa: PLC0415

    return scan_listing(Architecture(statement.library, statement.name), statement.layers or ())


def _scan_listed_name(library: str, name: str, *, proved: bool) -> Scan:
    """Scan an architecture by its name, which must be one that the installed library lists.

    Raises:
        UnknownArchitecture: If it is not.
        LoradarError: As ``discovery.scan``.
    """
    from ..discovery import How, list_architectures, scan_named  # noqa: PLC0415

    known = list_architectures(library)
    if name not in known:
        way_out = f"The installed {library} has no such architecture. Send 'layers' if another version has it."
        raise UnknownArchitecture(name, known, way_out, library=library)
    return scan_named(library, name, How(proved=proved))


def scan_sent(body: Json[str, Any]) -> Scan:
    """Scan what the body of ``POST /v1/scan`` holds: a configuration, a list of layers, or a reference.

    Args:
        body: ``{"config": {...}}``, ``{"layers": [...], "library"?, "name"?}`` or ``{"reference": "hub:org/repo"}``;
            layers are in the JSON form of ``ListedLayer``.

    Raises:
        InvalidRequest: If it holds none of them, or something absurd.
        LoradarError: As the scan of what it holds.
    """
    from ..discovery import scan_config, scan_listing  # noqa: PLC0415
    from ..domain.submissions import ListedLayer  # noqa: PLC0415

    if body.get("config") is not None:
        return scan_config(body["config"])
    if body.get("layers") is not None:
        library: Library = body.get("library") or "torch"
        layers = tuple(ListedLayer(each["path"], tuple(each["shape"]), each.get("class")) for each in body["layers"])
        return scan_listing(Architecture(library, body.get("name") or "unnamed"), layers)
    if body.get("reference") is not None:
        return _scan_reference(Reference.parse(body["reference"]))
    message = "There is nothing to scan. Send 'config', 'layers' or 'reference'."
    raise InvalidRequest(message)


def _scan_reference(reference: Reference) -> Scan:
    """Scan what a reference names, if that has no code of its own run."""
    from ..discovery import fetch_config, scan_config  # noqa: PLC0415

    if reference.scheme == "hub":
        return scan_config(fetch_config(reference, for_others=True))
    if reference.scheme not in LISTABLE:
        schemes = ("hub", *LISTABLE)
        message = f"{reference} is not scanned for others: it may be any code or file. Schemes: {quoted(schemes)}."
        raise InvalidReference(message, reference=str(reference), schemes=list(schemes))
    return _scan_listed_name(reference.scheme, reference.name, proved=False)
