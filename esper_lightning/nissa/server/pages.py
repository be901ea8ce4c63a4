"""The dashboard's files, read once: nothing else on the disk can be asked for."""

import hashlib
from collections.abc import Mapping
from importlib.resources import files

import msgspec

KINDS: Mapping[str, str] = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
"""Media types by the end of a file's name; a file of another kind is not served."""


class Page(msgspec.Struct, frozen=True):
    """One file: its media type, its bytes, and a tag that changes with them."""

    media_type: str
    body: bytes
    tag: str


def pages() -> dict[str, Page]:
    """The files by name."""
    folder = files("esper_lightning.nissa").joinpath("dashboard")
    found = {}
    for file in folder.iterdir():
        kind = KINDS.get(file.name.rpartition(".")[2])
        if kind is not None and file.is_file():
            body = file.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            found[file.name] = Page(kind, body, tag)
    return found
