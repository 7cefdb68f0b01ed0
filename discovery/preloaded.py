"""What the server of sandboxed processes imports before it forks them: every library, once."""

from .sources import quiet_libraries
from .workers import PRELOADED, preload, quiet_worker

quiet_libraries()
for library in PRELOADED:
    preload(library)
quiet_worker()
