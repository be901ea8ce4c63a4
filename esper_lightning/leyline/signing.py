"""Signatures of this installation: what it wrote itself is told from what somebody else wrote.

A signature is HMAC-SHA256 (RFC 2104) with a secret key. Who holds the key can make one, so the key
stays with its user; who does not cannot change a signed byte without being noticed. It says nothing
about how old the bytes are: what was signed once is authentic for ever.
"""

import hmac
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from esper_lightning.leyline.errors import InvalidArgument, UnusableKey
from esper_lightning.leyline.folders import config_home, sync_folder

SECRET_VARIABLE = "ESPER_LEYLINE_SECRET"
"""The environment variable that may hold the key."""

MIN_KEY_BYTES = 16
"""A shorter key is refused."""

DIGEST_BYTES = 32
"""Length of a signature as bytes."""

_NEW_KEY_BYTES = 32

_SIGNATURE = re.compile(r"[0-9a-f]{64}")


class Signer:
    """Signs bytes, and tells whether a signature is its own.

    It shows its key nowhere, and is not pickled, so that the key does not end in a checkpoint.

    Args:
        key: signs and verifies; at least 16 bytes.
        previous: keys that only verify, for as long as a new one is being introduced.

    Raises:
        InvalidArgument: a key is too short.

    >>> signer = Signer(b"sixteen bytes or more")
    >>> signer.verify(b"message", signer.sign(b"message"))
    True
    >>> signer.verify(b"another", signer.sign(b"message"))
    False
    """

    __slots__ = ("_keys",)

    def __init__(self, key: bytes, *, previous: Sequence[bytes] = ()) -> None:
        self._keys = (key, *previous)
        for each in self._keys:
            if len(each) < MIN_KEY_BYTES:
                raise InvalidArgument(_too_short("a key", len(each)))

    def digest(self, data: bytes) -> bytes:
        """The signature of ``data``: 32 bytes."""
        return hmac.digest(self._keys[0], data, "sha256")

    def check(self, data: bytes, digest: bytes) -> bool:
        """Whether ``digest`` is the signature of ``data`` by one of the keys, in constant time."""
        found = False
        for key in self._keys:
            found |= hmac.compare_digest(digest, hmac.digest(key, data, "sha256"))
        return found

    def sign(self, data: bytes) -> str:
        """The signature of ``data`` as text: 64 hexadecimal digits."""
        return self.digest(data).hex()

    def verify(self, data: bytes, signature: str) -> bool:
        """Whether ``signature`` is that text for ``data`` by one of the keys, in constant time."""
        if not _SIGNATURE.fullmatch(signature):
            return False
        return self.check(data, bytes.fromhex(signature))

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Signer is not pickled, since its key would be written with it: make it again in the "
            "other process, from installation_key()"
        )


def installation_key() -> bytes:
    """The key of this installation.

    It is what ``ESPER_LEYLINE_SECRET`` holds, if that is set. Otherwise it is in the file
    ``esper_lightning/secret`` of the user's folder for configuration (``XDG_CONFIG_HOME``, or
    ``~/.config``), which is made on first use with 32 random bytes that only the user can read.
    Processes that make it at once agree on one.

    Raises:
        InvalidArgument: the variable holds fewer than 16 bytes.
        UnusableKey: the file cannot be made or read, is too short, or others can read it.
    """
    secret = os.environ.get(SECRET_VARIABLE)
    if secret:
        key = os.fsencode(secret)
        if len(key) < MIN_KEY_BYTES:
            raise InvalidArgument(_too_short(SECRET_VARIABLE, len(key)))
        return key
    return stored_key(config_home() / "secret")


def stored_key(path: Path) -> bytes:
    """The key in a file, which is made on first use with 32 random bytes that only its user reads.

    Processes that make it at once agree on one.

    Raises:
        UnusableKey: the file cannot be made or read, is too short, or others can read it.
    """
    try:
        if not path.exists():
            _make(path)
        return _read(path)
    except OSError as error:
        raise UnusableKey(
            f"the key {path} cannot be made or read ({error.strerror}); "
            f"set {SECRET_VARIABLE} to a long random string instead"
        ) from error


def _make(path: Path) -> None:
    """Write a new key under a temporary name; whoever links it first to its name has made it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
    try:
        descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_NEW_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, path)
        except FileExistsError:  # another process was faster: its key holds
            return
        sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        key = file.read()
    if os.name == "posix" and mode & 0o077:
        raise UnusableKey(
            f"the key {path} has mode {mode & 0o777:o}: others can read it. "
            f"If nobody has, `chmod 600 {path}`; if somebody may have, delete it: a new one is "
            "made, and what was signed with the old one is no longer accepted"
        )
    if len(key) < MIN_KEY_BYTES:
        raise UnusableKey(
            f"{_too_short(str(path), len(key))}; delete it, and a new one is made (what was signed "
            "before is then no longer accepted)"
        )
    return key


def _too_short(what: str, length: int) -> str:
    return f"{what} has {length} bytes; a key for signatures needs at least {MIN_KEY_BYTES}"
