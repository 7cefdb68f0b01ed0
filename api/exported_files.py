"""The exported Python files, made once per state of the registry: each takes two seconds."""

from threading import Lock

from ..registry import Registry, constants_python


class Exports:
    """Keeps the last file of each kind until the registry changes."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: dict[bool, tuple[int, bytes]] = {}

    def python(self, registry: Registry, *, only_ours: bool) -> bytes:
        """Return the registry's answers as a Python file; requests that come meanwhile wait for the same one."""
        with self._lock:
            serial = registry.serial()
            kept = self._kept.get(only_ours)
            if kept is None or kept[0] != serial:
                source = constants_python(registry.list_mappings("transformers"), only_ours=only_ours)
                kept = self._kept[only_ours] = (serial, source.encode())
            return kept[1]
