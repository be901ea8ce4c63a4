"""What is known of one version of an artifact, as signed bytes."""

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

import msgspec

from esper_lightning.leyline import DecodeError, InvalidArgument, Signer, decode, encode
from esper_lightning.urza.errors import BadSignature

MAX_MANIFEST_BYTES = 2**20
"""Of a manifest, most of which is what it says about its artifact."""

_PURPOSE = b"esper_lightning.urza manifest\0"
"""Stands before the bytes that are signed, so that no other signed message can be a manifest."""

_KIND = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_NAME = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,255}")
_PART = re.compile(r"(?=.{1,255}\Z)[\w+=@-][\w.+=@-]*(/[\w+=@-][\w.+=@-]*)*", re.ASCII)


class Reference(msgspec.Struct, frozen=True, order=True):
    """One version, by name.

    Attributes:
        kind: of artifact, such as ``compiled`` or ``policy``.
        name: within its kind.
        version: from 1; never given twice.
    """

    kind: str
    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.kind} {self.name} version {self.version}"


class Part(msgspec.Struct, frozen=True):
    """One sequence of bytes of an artifact.

    Attributes:
        sha256: of the bytes, in hexadecimal digits; the name of their file.
        size: in bytes.
    """

    sha256: str
    size: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, tag="urza 1"):
    """One version: what it is, what it came from and what its bytes are.

    Attributes:
        kind, name, version: see :class:`Reference`.
        about: what its maker says of it, as JSON.
        parents: the versions it was made from.
        parts: its bytes, by name.
        created: seconds since 1970, by the clock of the machine that stored it.
    """

    kind: str
    name: str
    version: int
    about: msgspec.Raw
    parents: tuple[Reference, ...]
    parts: dict[str, Part]
    created: float

    @property
    def reference(self) -> Reference:
        """Which version this is."""
        return Reference(self.kind, self.name, self.version)

    @property
    def size(self) -> int:
        """Bytes of all parts together."""
        return sum(part.size for part in self.parts.values())


def seal(manifest: Manifest, signer: Signer) -> tuple[str, str]:
    """The manifest as canonical JSON, and its signature."""
    text = encode(manifest)
    return text.decode(), signer.sign(_PURPOSE + text)


def unseal(text: object, signature: object, signer: Signer, *, claimed: Reference) -> Manifest:
    """Read a manifest after its signature is found to be right.

    Args:
        text: the manifest, whatever a database returned for it.
        signature: likewise.
        signer: of this installation.
        claimed: which version it should be.

    Raises:
        BadSignature: the signature is not by this installation, or is that of another version.
    """
    if isinstance(text, str) and isinstance(signature, str) and len(text) <= MAX_MANIFEST_BYTES:
        data = text.encode(errors="replace")
        if signer.verify(_PURPOSE + data, signature):
            return _read(data, claimed)
    raise BadSignature(
        f"{claimed} is not signed with the key of this installation: it was changed after it was "
        "stored, or stored with another key; nothing of it was opened. Set the key it was stored "
        "with, or store it again"
    )


def _read(data: bytes, claimed: Reference) -> Manifest:
    try:
        manifest: Manifest = decode(data, Manifest, what=f"the manifest of {claimed}")
    except DecodeError as error:  # signed: by another release
        raise BadSignature(f"{error}; it was signed by another release: store it again") from error
    if manifest.reference != claimed:
        raise BadSignature(
            f"the manifest of {manifest.reference} stands where that of {claimed} should; nothing "
            "of it was opened"
        )
    return manifest


def check_key(kind: str, name: str) -> None:
    """Refuse what cannot be the key of an artifact.

    Raises:
        InvalidArgument: ``kind`` is not a short lower-case word, or ``name`` is empty, longer than
            255 characters, or holds control characters.
    """
    if not (isinstance(kind, str) and _KIND.fullmatch(kind)):
        raise InvalidArgument(
            f"kind must be a word of lower-case letters, digits, - and _, such as 'policy', "
            f"got {kind!r}"
        )
    check_name("name", name)


def check_name(what: str, name: str) -> None:
    """Refuse what is no text of 1 to 255 characters without control characters.

    Raises:
        InvalidArgument: it is something else.
    """
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise InvalidArgument(
            f"{what} must be 1 to 255 characters, none of them a control character, got {name!r}"
        )


def check_part(name: str) -> None:
    """Refuse what is no relative path of plain names, which a part may be unpacked under.

    Raises:
        InvalidArgument: it is empty, too long, leads out of a folder, or has other characters.
    """
    if not (isinstance(name, str) and _PART.fullmatch(name)):
        raise InvalidArgument(
            "a part's name must be a relative path of ASCII letters, digits and _.+=@-, in which "
            f"no name begins with a dot, such as 'cache/kernel.so', got {name!r}"
        )


def told(about: Mapping[str, Any]) -> msgspec.Raw:
    """What is said about an artifact, as JSON.

    Raises:
        InvalidArgument: something in it would not come back from JSON as it is.
    """
    if not isinstance(about, Mapping):
        raise InvalidArgument(f"about must be a mapping, got {about!r}")
    try:
        _check_json("about", about)
        text = encode(about)
        msgspec.json.decode(text)
    except InvalidArgument:
        raise
    except (TypeError, ValueError, ArithmeticError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidArgument(f"about cannot be written as JSON: {error}") from error
    if len(text) > MAX_MANIFEST_BYTES // 2:
        raise InvalidArgument(
            f"about is {len(text)} bytes of JSON; at most {MAX_MANIFEST_BYTES // 2} are kept: "
            "store more than that as a part"
        )
    return msgspec.Raw(text)


def _check_json(where: str, value: object) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise InvalidArgument(f"{where} must have texts as keys, got {key!r}")
            _check_json(f"{where}[{key!r}]", inner)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            _check_json(f"{where}[{number}]", inner)
    elif isinstance(value, float):
        if not isfinite(value):
            raise InvalidArgument(f"{where} must be finite or None, got {value!r}")
    elif not (value is None or isinstance(value, str | int)):
        raise InvalidArgument(
            f"{where} must be JSON (text, number, boolean, None, list, mapping), got {value!r}"
        )
