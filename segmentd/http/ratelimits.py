"""How much a key may ask, and how often an address may guess: token buckets.

Owns the buckets and the fields `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10). Never
refuses anything itself: it says how long to wait, and the edge refuses.

Invariants:
1. A bucket holds `rate * seconds` tokens at most and is refilled by the clock, never by a timer.
2. Whoever is told to wait has taken nothing.
3. What is larger than a whole bucket waits for a full one and leaves it in debt, so the rate holds in the long run and
   nothing is refused for ever.
4. At most `addresses_max` addresses are remembered; the one that has not guessed for longest is forgotten first.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

Clock = Callable[[], float]
"""Seconds from an arbitrary beginning, never going back."""

_IPV6_NETWORK_BITS: Final = 64  # whoever has one address of such a network usually has all of them


class TokenBucket:
    """`rate` tokens a second, of which those of `seconds` may come at once (at least one token)."""

    def __init__(self, rate: float, seconds: float, now: float) -> None:
        self.rate = rate
        self.size = max(1.0, rate * seconds)
        self._level = self.size
        self._at = now

    def take(self, tokens: int, now: float) -> float:
        """Take `tokens` and return 0, or take none and return the seconds until they are there (above 0)."""
        level = self.level(now)
        needed = min(tokens, self.size)
        # What was waited for exactly must not be missed by a rounding error.
        if level + 1e-9 < needed:
            return (needed - level) / self.rate
        self._level, self._at = level - tokens, now
        return 0.0

    def give_back(self, tokens: int, now: float) -> None:
        """Put back what was taken for something that was not done."""
        self._level, self._at = min(self.size, self.level(now) + tokens), now

    def level(self, now: float) -> float:
        """Tokens that are there; below zero after something larger than the bucket."""
        return min(self.size, self._level + max(0.0, now - self._at) * self.rate)


class Quota:
    """One policy of one key: its bucket, its name and its unit as the header fields show them."""

    def __init__(self, name: str, rate: float, seconds: float, clock: Clock) -> None:
        self.name = name
        self.rate = rate
        self._clock = clock
        self._bucket = TokenBucket(rate, seconds, clock())
        # `w` is a whole number of seconds, in which the whole bucket comes back.
        window = max(1, math.ceil(self._bucket.size / rate))
        unit = "" if name == "requests" else f';qu="{name}"'
        self.policy = f'"{name}";q={math.floor(self._bucket.size)}{unit};w={window}'

    def take(self, tokens: int) -> float:
        """As `TokenBucket.take`, now."""
        return self._bucket.take(tokens, self._clock())

    def give_back(self, tokens: int) -> None:
        """As `TokenBucket.give_back`, now."""
        self._bucket.give_back(tokens, self._clock())

    def state(self) -> str:
        """The item of the field `RateLimit`: what is left, and the seconds until the bucket is full again."""
        level = self._bucket.level(self._clock())
        full = math.ceil((self._bucket.size - level) / self.rate - 1e-9)
        return f'"{self.name}";r={max(0, math.floor(level + 1e-9))};t={max(0, full)}'


class KeyQuotas:
    """What one key may ask; `requests` or `events` is None where there is no limit."""

    def __init__(self, requests_rate: float, events_rate: float, seconds: float, clock: Clock = time.monotonic) -> None:
        """The rates are per second, 0 for no limit."""
        self.figures = (requests_rate, events_rate, seconds)
        self.requests = Quota("requests", requests_rate, seconds, clock) if requests_rate else None
        self.events = Quota("events", events_rate, seconds, clock) if events_rate else None
        self._quotas = [quota for quota in (self.requests, self.events) if quota is not None]
        self._policy = ("ratelimit-policy", ", ".join(quota.policy for quota in self._quotas))

    def headers(self) -> tuple[tuple[str, str], ...]:
        """The two fields that every answer to this key has."""
        return (self._policy, ("ratelimit", ", ".join([quota.state() for quota in self._quotas])))


class GuessLimit:
    """Bounds how often unknown secrets are looked for, for each client address."""

    def __init__(self, per_minute: int, addresses_max: int, clock: Clock = time.monotonic) -> None:
        """per_minute: guesses of one address, which may come at once; 0 for no limit."""
        self._per_minute = per_minute
        self._addresses_max = addresses_max
        self._clock = clock
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_of(self, address: str) -> float:
        """Seconds until `address` may guess again; 0: it may now. Takes nothing."""
        bucket = self._buckets.get(_network_of(address)) if self._buckets else None
        if bucket is None:
            return 0.0
        return max(0.0, 1.0 - bucket.level(self._clock())) / bucket.rate

    def guessed(self, address: str) -> None:
        """`address` has sent a secret that is none."""
        if not self._per_minute:
            return
        now, name = self._clock(), _network_of(address)
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = TokenBucket(self._per_minute / 60, 60.0, now)
            if len(self._buckets) > self._addresses_max:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(name)
        bucket.take(1, now)


def client_address(peer: str, forwarded_for: str | None, proxies: int) -> str:
    """Who is counted: the connection's peer, or what the outermost of `proxies` trusted proxies has said it saw.

    forwarded_for: the field `X-Forwarded-For`, to which each proxy has added one address on the right.
    """
    if not proxies or forwarded_for is None:
        return peer
    entries = [entry.strip() for entry in forwarded_for.rsplit(",", proxies)]
    return entries[-proxies] if len(entries) >= proxies else entries[0]


def _network_of(address: str) -> str:
    """The address itself (IPv4), or its network (IPv6); what is no address is cut to a bounded name."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, _IPV6_NETWORK_BITS), strict=False).network_address)
    return str(parsed)
