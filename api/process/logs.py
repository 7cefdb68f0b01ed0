"""Log in lines for people or in JSON for programs, each with the id of the request it is about.

Everything is logged with the standard library, and formatted by structlog: a program that runs the application itself
keeps its own logging, and gets the same records.
"""

import json
import logging
from typing import Any

import structlog

from ...settings import Settings

REQUEST_ID = "request_id"
"""Name of the id of a request among the context variables, in JSON and in the lines."""

_SHARED: tuple[structlog.types.Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
)


def set_up_logs(settings: Settings) -> None:
    """Send the records of this process to standard error; do nothing where a program has set logging up already."""
    root = logging.getLogger()
    if root.handlers:
        return
    as_json = settings.log_format == "json"
    render = _to_json if as_json else _to_line
    times = structlog.processors.TimeStamper("iso" if as_json else "%Y-%m-%d %H:%M:%S", utc=as_json)
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, times],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                render,
            ],
        )
    )
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it logs what clients do wrong
    logging.getLogger("loradar").setLevel(settings.log_level.upper())
    logging.raiseExceptions = False  # a full disk or a closed stream must not fill another one with tracebacks


def _to_json(_logger: object, _name: str, event: structlog.types.EventDict) -> str:
    return json.dumps(event, default=str)


def _to_line(_logger: object, _name: str, event: structlog.types.EventDict) -> str:
    """Return a line for people: time, level, logger, message and request; the fields of a message are in its text."""
    values: dict[str, Any] = dict(event)
    head = f"{values['timestamp']} {values['level'].upper()} {values['logger']}: {values['event']}"
    named = f" [{REQUEST_ID}={values[REQUEST_ID]}]" if REQUEST_ID in values else ""
    return head + named + (f"\n{values['exception']}" if "exception" in values else "")
