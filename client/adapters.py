"""Read a saved adapter to send: its configuration, and its file or the header of that."""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

from ..errors import AdapterUnreadable
from ..weights import LENGTH_BYTES, read_length

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MOST_SENT = 8 << 20
"""Bytes of a file that is sent as a whole."""


def read_adapter(path: Path, *, values: bool) -> dict[str, Any]:
    """Return the fields of ``AdapterBody`` for the adapter in a folder or a file.

    Args:
        path: The folder, or the ``.safetensors`` file.
        values: Whether to send a small file as a whole.

    Raises:
        AdapterUnreadable: If there is none, or its configuration is no JSON object.
        WeightsUnreadable: If the file has no header.
    """
    weights = path / WEIGHTS if path.is_dir() else path
    config = weights.with_name(CONFIG)
    try:
        settings = json.loads(config.read_bytes()) if config.exists() else {}
        if not isinstance(settings, dict):
            raise AdapterUnreadable(f"{config} is no JSON object.", path=str(config))
        with weights.open("rb") as file:
            if values and weights.stat().st_size <= MOST_SENT:
                return {"config": settings, "file": b64encode(file.read()).decode()}
            header = file.read(read_length(file.read(LENGTH_BYTES), str(weights)))
        return {"config": settings, "header": json.loads(header)}
    except OSError as error:
        raise AdapterUnreadable(f"{weights} cannot be read: {error.strerror}.", path=str(weights)) from error
    except (ValueError, RecursionError) as error:
        message = f"{weights} or its configuration is no adapter: {error}."
        raise AdapterUnreadable(message, path=str(weights)) from error
