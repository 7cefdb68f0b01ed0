"""How often an address or a token may ask, and the headers that tell.

Counted in the memory of each process, in windows of a minute that begin with the first request: several processes
behind one address allow that many times as much. The headers are those of draft-ietf-httpapi-ratelimit-headers.
"""

import time
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil
from typing import Any

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from ..errors import TooManyRequests
from ..settings import RequestLimits

WINDOW = 60
"""Seconds."""

NETWORK_BITS = 64
"""What one IPv6 customer has at least: counting its addresses one by one would count nothing."""

_SAYS = {
    "address": "requests from your address",
    "token": "requests with your tokens",
    "failed": "requests with tokens that do not work from your address",
    "scan": "scans from your address",
}


COSTS = {"/v1/targets:batch": 30, "/v1/snapshot": 30}
"""What a request counts as, where one takes as long, or as much to send, as many others."""

SIMILAR, SIMILAR_COST = "/similar", 5


def cost_of(path: str) -> int:
    """Return how many requests of an address a request for this path counts as."""
    return COSTS.get(path) or (SIMILAR_COST if path.endswith(SIMILAR) else 1)


class Limiter:
    """Counts requests by policy: ``address``, ``token``, ``failed`` or ``scan``."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits: dict[str, int] = asdict(limits)
        self._items = {name: RateLimitItemPerMinute(limit) for name, limit in self._limits.items()}
        self._windows = FixedWindowRateLimiter(MemoryStorage())

    def take(self, policy: str, who: str, met: MutableMapping[str, tuple[int, int]], cost: int = 1) -> None:
        """Count one request, and note what is left in ``met``.

        Args:
            policy: Which.
            who: Whom it is counted for.
            met: What the answer tells of.
            cost: How many it counts as; no more than the limit, or it could never be made.

        Raises:
            TooManyRequests: If none was left; says in how many seconds there are some again.
        """
        allowed = self._windows.hit(self._items[policy], policy, who, cost=min(cost, self._limits[policy]))
        met[policy] = self._left(policy, who)
        if not allowed:
            raise self._refusal(policy, met[policy][1])

    def require_left(self, policy: str, who: str, met: MutableMapping[str, tuple[int, int]]) -> None:
        """Check that one more is allowed, without counting it.

        Raises:
            TooManyRequests: If it is not.
        """
        if not self._windows.test(self._items[policy], policy, who):
            met[policy] = self._left(policy, who)
            raise self._refusal(policy, met[policy][1])

    def headers(self, met: Mapping[str, tuple[int, int]]) -> dict[str, str]:
        """Return the headers that tell which policies a request met, what is left of each, and until when."""
        return {
            "RateLimit-Policy": ", ".join(f'"{name}";q={self._limits[name]};w={WINDOW}' for name in met),
            "RateLimit": ", ".join(f'"{name}";r={left};t={seconds}' for name, (left, seconds) in met.items()),
        }

    def _left(self, policy: str, who: str) -> tuple[int, int]:
        stats = self._windows.get_window_stats(self._items[policy], policy, who)
        return stats.remaining, min(WINDOW, max(1, ceil(stats.reset_time - time.time())))

    def _refusal(self, policy: str, seconds: int) -> TooManyRequests:
        limit = self._limits[policy]
        message = f"More than {limit} {_SAYS[policy]} within a minute. Come again in {seconds} s."
        return TooManyRequests(message, retry_after=seconds, limit=limit, policy=policy)


def address_of(scope: Mapping[str, Any]) -> str:
    """Return whom a request is counted for: its IPv4 address, its IPv6 network, or what there is instead of one."""
    host = (scope.get("client") or ("unknown", 0))[0]
    try:
        address = ip_address(host)
    except ValueError:
        return str(host)
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped or ip_network((int(address), NETWORK_BITS), strict=False))
    return str(address)
