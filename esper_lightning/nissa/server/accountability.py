"""The token, and the log of who changed what."""

import errno
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from esper_lightning.leyline import InvalidArgument

log = logging.getLogger(__name__)

TOKEN_VARIABLE = "NISSA_TOKEN"
TOKEN_NAME = "token"
AUDIT_NAME = "audit.jsonl"

LEAST_TOKEN = 16
"""Characters of a token."""

MAX_AUDIT_BYTES = 10 * 2**20
"""Of the log; then it begins anew and the one before is kept with the ending ``.1``."""


def token_from(folder: Path) -> str:
    """The token of the environment, or that of ``folder``, where one is made on first use.

    Its file can be read by its owner alone.

    Raises:
        InvalidArgument: the token is shorter than 16 characters or not printable ASCII, or others
            may read its file.
    """
    given = os.environ.get(TOKEN_VARIABLE)
    if given is not None:
        return _checked(given.strip(), TOKEN_VARIABLE)
    path = folder / TOKEN_NAME
    folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise InvalidArgument(
                f"{path} can be read by others; remove it for a new token, or chmod 600"
            ) from None
        return _checked(path.read_text(encoding="utf-8").strip(), str(path))
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        token = secrets.token_urlsafe(24)
        file.write(token + "\n")
    log.warning("the token for acknowledging alerts is in %s", path)
    return token


def _checked(token: str, where: str) -> str:
    if len(token) < LEAST_TOKEN or not (token.isascii() and token.isprintable()):
        raise InvalidArgument(
            f"the token of {where} has {len(token)} characters; it needs {LEAST_TOKEN} at least, "
            "printable ASCII; a file that is removed is made anew"
        )
    return token


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody changed something, or tried to.

    Attributes:
        at: Unix time in seconds.
        client: address.
        action: what was asked for.
        target: what it was asked of.
        who: the name that was given.
        status: HTTP status of the answer.
        detail: why it was refused, or empty.
    """

    at: float
    client: str
    action: str
    target: str
    who: str
    status: int
    detail: str = ""


class AuditLog:
    """A file of JSON lines, one for each change that was asked for. For several threads.

    Args:
        path: the file; it can be read by its owner alone. Its folder is made.
        clock: Unix seconds.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._lock = threading.Lock()

    def write(
        self, *, client: str, action: str, target: str, who: str, status: int, detail: str = ""
    ) -> None:
        """Add a line.

        Raises:
            OSError: it cannot be written; nothing of it is there.
        """
        entry = AuditEntry(
            at=self._clock(),
            client=client,
            action=action,
            target=target[:200],
            who=who[:200],
            status=status,
            detail=detail[:500],
        )
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and self.path.stat().st_size > MAX_AUDIT_BYTES:
                self.path.replace(self.path.with_name(self.path.name + ".1"))
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            line = msgspec.json.encode(entry) + b"\n"
            with os.fdopen(descriptor, "ab", buffering=0) as file:
                before = file.tell()
                if file.write(line) != len(line):
                    file.truncate(before)  # a part of a line would take the next one with it
                    raise OSError(errno.ENOSPC, "there is no room for a whole line", str(self.path))
