"""The version of what callbacks keep in a checkpoint."""

from collections.abc import Mapping
from typing import Any

from esper_lightning.leyline import DecodeError

STATE_VERSION = 1
"""Of what a checkpoint holds beside weights and optimiser."""


def check_version(state: Mapping[str, Any]) -> None:
    """Refuse what another release saved.

    Raises:
        DecodeError: the state is of another version.
    """
    found = state.get("version")
    if found != STATE_VERSION:
        raise DecodeError(
            f"the checkpoint's state of Kasmina has version {found}, this release reads version "
            f"{STATE_VERSION}; resume with the release that saved it, versions are in its run's "
            f"summary.json"
        )
