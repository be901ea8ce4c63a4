"""Where the library of this user is."""

import os
from pathlib import Path

from esper_lightning.leyline.folders import cache_home

ROOT_VARIABLE = "ESPER_URZA_ROOT"
"""The environment variable that may name the folder."""


def default_root() -> Path:
    """The folder that ``ESPER_URZA_ROOT`` names, else ``esper_lightning/urza`` in the user's cache.

    The cache is ``XDG_CACHE_HOME``, or ``~/.cache``.
    """
    told = os.environ.get(ROOT_VARIABLE)
    return Path(told).expanduser() if told else cache_home() / "urza"
