"""What stands before every request: headers, limits, and the token."""

import hmac
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import AddressValueError, IPv6Address

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 4096
"""Of a request; the longest is an acknowledgement."""

MAX_CLIENTS = 1024
"""Addresses, of IPv6 networks, whose requests are counted; who was silent longest is forgotten."""

READS = (50.0, 300.0)
"""Requests a second and at once, of one address."""

CHANGES = (0.5, 10.0)
"""Likewise of requests that change state, those without the right token included."""

SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        b"connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
        b"frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)


class Allowance:
    """How much each client may still ask: a bucket that fills up again.

    Args:
        rate: requests a second that fill it.
        burst: what it holds.
        clock: seconds from an arbitrary start.
    """

    def __init__(
        self, rate: float, burst: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate, self.burst = rate, burst
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """Take one request; 0 where there was one, else the seconds until there is."""
        now = self._clock()
        left, since = self._left.pop(client, (self.burst, now))
        left = min(self.burst, left + (now - since) * self.rate)
        wait = 0.0 if left >= 1 else (1 - left) / self.rate
        self._left[client] = (left if wait else left - 1, now)
        if len(self._left) > MAX_CLIENTS:
            self._left.popitem(last=False)
        return wait


class Guard:
    """Limits requests and adds the security headers to every answer.

    Args:
        app: what is guarded.
        reads, changes: requests a second and at once that one address is allowed.
        clock: seconds from an arbitrary start.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        reads: tuple[float, float] = READS,
        changes: tuple[float, float] = CHANGES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app = app
        self._reads = Allowance(*reads, clock=clock)
        self._changes = Allowance(*changes, clock=clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *SECURITY_HEADERS]
            await send(message)

        client = _counted_as(scope["client"][0]) if scope.get("client") else "unknown"
        is_read = scope["method"] in ("GET", "HEAD", "OPTIONS")
        wait = (self._reads if is_read else self._changes).take(client)
        if wait > 0:
            await _refuse(send_guarded, 429, "too many requests; wait a while", wait)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > MAX_BODY_BYTES:
            await _refuse(send_guarded, 413, f"a body has at most {MAX_BODY_BYTES} bytes")
            return
        await self.app(scope, receive, send_guarded)


async def body_of(request: Request) -> bytes | None:
    """The body, None where it is too long, whatever length it was said to have."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            return None
    return body


def has_token(request: Request, token: str) -> bool:
    """Whether the request shows the token; how long it takes does not tell how wrong it is."""
    shown = request.headers.get("authorization", "")
    scheme, _, value = shown.partition(" ")
    is_right = hmac.compare_digest(value.strip().encode(), token.encode())
    return is_right and scheme.lower() == "bearer"


def _counted_as(address: str) -> str:
    """The address; of IPv6 its network, in which one machine has as many addresses as it likes."""
    try:
        number = int(IPv6Address(address))
    except AddressValueError:  # IPv4, or what a proxy made up
        return address
    return (
        address if number >> 32 == 0xFFFF else str(IPv6Address(number >> 64 << 64))
    )  # mapped IPv4


async def _refuse(send: Send, status: int, why: str, wait_s: float = 0.0) -> None:
    body = json.dumps({"error": why}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if wait_s:
        headers.append((b"retry-after", str(int(wait_s) + 1).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
