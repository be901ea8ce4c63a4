"""Telling a published file from another one of its name."""

import hashlib
from pathlib import Path

from esper_lightning.tolaria.data.errors import DataDamaged


def check_sha256(path: Path, expected: str) -> None:
    """Compare a file with the published one.

    Args:
        path: of the file.
        expected: its SHA-256, in hexadecimal digits.

    Raises:
        DataDamaged: the checksum is another.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise DataDamaged(
            f"{path} is not the published file: its SHA-256 is {found}, expected {expected}. "
            f"Delete it and put the published one in its place, or let download=true fetch it. "
            f"verify=false reads data of your own in this format"
        )
