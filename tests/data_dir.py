"""Where tests find data sets that do not come with a package."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def data_dir(*needed: str) -> Path:
    """``ESPER_DATA_DIR``, or a folder beside the checkout; skips the test without ``needed``."""
    folder = Path(os.environ.get("ESPER_DATA_DIR") or ROOT.parent / "shared" / "data")
    missing = [name for name in needed if not (folder / name).exists()]
    if missing:
        pytest.skip(f"{', '.join(missing)} not found in {folder}; set ESPER_DATA_DIR")
    return folder
