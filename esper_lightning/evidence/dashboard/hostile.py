"""Requests that mean no good: none may break the server, change anything, or show another file."""

import random
import socket
from pathlib import Path
from urllib.parse import quote, urlsplit

import msgspec

from esper_lightning.nissa.server.guard import MAX_BODY_BYTES

SECRET = b"nobody may read this"

_PATHS = (
    "/",
    "/api/runs/{}",
    "/api/events?q={}",
    "/api/alerts/{}/ack",
    "/{}",
    "/api/stream?run={}",
)
_STEPS = (
    "../",
    "..%2f",
    "%2e%2e/",
    "..\\",
    "%252e%252e%252f",
    "....//",
    "%00",
    "/",
    "%c0%ae%c0%ae/",
)
_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "get", "X")
_TOKENS = (
    "",
    "Bearer",
    "Bearer x",
    "Basic dXNlcjpwYXNz",
    "Bearer null",
    "bearer \xff",
    "Bearer " + "x" * 5000,
)


class Hostile(msgspec.Struct, frozen=True, kw_only=True):
    """What came of them.

    Attributes:
        num: requests.
        failures: what went wrong, in words; the first ones.
        failed: how many did.
        statuses: answers by status; 0 where the line was closed without one.
    """

    num: int
    failed: int
    failures: tuple[str, ...]
    statuses: dict[int, int]


def requests(url: str, secret: Path, *, num: int, seed: int = 0) -> Hostile:
    """Send so many.

    Args:
        url: of a server that refuses nobody for asking often.
        secret: a file that holds :data:`SECRET`, outside of what is served.
        num: requests.
        seed: of what is sent.
    """
    draw = random.Random(seed)
    there = urlsplit(url)
    failures: list[str] = []
    statuses: dict[int, int] = {}
    for _ in range(num):
        sent = _request(draw, secret)
        answer = _send(there.hostname or "", there.port or 0, sent)
        head, _, body = answer.partition(b"\r\n\r\n")
        parts = head.split(maxsplit=2)
        status = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0
        statuses[status] = statuses.get(status, 0) + 1
        if (
            status >= 500
            or SECRET in body
            or (b"/ack" in sent.split(b"\r\n")[0] and status < 400 and status)
        ):
            failures.append(f"{status} for {sent[:200]!r}")
    if b'"ok"' not in _send(there.hostname or "", there.port or 0, _get("/health", there.netloc)):
        failures.append("afterwards it was not well")
    return Hostile(num=num, failed=len(failures), failures=tuple(failures[:10]), statuses=statuses)


def _request(draw: random.Random, secret: Path) -> bytes:
    """One request: a bad path, method, host, token, length or body, or several of these."""
    steps = "".join(draw.choice(_STEPS) for _ in range(draw.randint(0, 8)))
    name = draw.choice(
        [steps + str(secret).lstrip("/"), quote(draw.randbytes(draw.randint(0, 40)))]
    )
    path = draw.choice(_PATHS).format(name or "x")
    # An endless answer says nothing of what it should refuse.
    method = "DELETE" if "stream" in path else draw.choice(_METHODS)
    host = draw.choice(["127.0.0.1", "127.0.0.1", "127.0.0.1", "evil.example", "", "a" * 300])
    body = draw.choice(
        [b"", b"{", b"[" * 3000, b'{"who":"Eve"}', draw.randbytes(200), b"x" * (MAX_BODY_BYTES + 1)]
    )
    length = draw.choice([str(len(body))] * 6 + ["-1", "x", str(10**12)])
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {host}",
        f"Authorization: {draw.choice(_TOKENS)}",
        f"Content-Length: {length}",
        f"Last-Event-ID: {draw.choice(['', 'x', '9' * 50, '-1'])}",
        "Connection: close",
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def _get(path: str, host: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


def _send(host: str, port: int, sent: bytes) -> bytes:
    """The answer; what came of it where the line is closed early."""
    answer = b""
    with socket.create_connection((host, port), timeout=5) as line:
        try:
            line.sendall(sent)
            line.shutdown(socket.SHUT_WR)
            while part := line.recv(65536):
                answer += part
        except (ConnectionError, TimeoutError):
            return answer
    return answer
