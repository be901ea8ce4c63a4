"""Fetching one file over HTTP: whole, with the right checksum, or not at all."""

import hashlib
import http.client
import logging
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from esper_lightning.tolaria.data.errors import DownloadFailed
from esper_lightning.tolaria.data.whole_file import whole_file

log = logging.getLogger(__name__)

TIMEOUT_S = 30.0
"""For connecting and for each wait for data, not for the whole file."""

MAX_BYTES = 256 * 2**20
"""Of one file, which is held in memory until its checksum is known."""


def download(name: str, *, mirrors: Sequence[str], sha256: str, folder: Path) -> Path:
    """Fetch a file from the first mirror that gives it as it should be.

    Nothing is written before the checksum is right. The file then appears under its name at once,
    so that several processes may fetch it beside each other and a reader never meets half of it.

    Args:
        name: of the file, on the mirrors and in ``folder``.
        mirrors: addresses that end in a slash, tried in this order.
        sha256: of the file, in hexadecimal digits.
        folder: where it goes; made if absent.

    Returns:
        The path of the file.

    Raises:
        DownloadFailed: no mirror gave the file; says of each what happened.
    """
    faults = []
    for mirror in mirrors:
        url = mirror + name
        log.info("downloading %s", url)
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
                content = response.read(MAX_BYTES)
        except (OSError, http.client.HTTPException) as error:
            faults.append(f"{url}: {error or type(error).__name__}")
            continue
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            faults.append(f"{url}: {len(content)} bytes with SHA-256 {found}, expected {sha256}")
            continue
        with whole_file(folder / name) as file:
            file.write(content)
        return folder / name
    tried = "\n  ".join(faults)
    raise DownloadFailed(
        f"{name} could not be downloaded:\n  {tried}\nCheck the network, or put the file into "
        f"{folder} by hand"
    )
