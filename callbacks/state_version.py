"""The version of what callbacks keep in a checkpoint."""

from collections.abc import Mapping
from typing import Any

from esper_lightning.leyline import DecodeError

STATE_VERSION = 2
"""Of what a checkpoint holds beside weights and optimiser."""


def check_version(state: Mapping[str, Any], *, of: str) -> None:
    """Refuse what another release saved, before anything else in it is looked at.

    Args:
        state: of a callback, from a checkpoint.
        of: the callback, for the error.

    Raises:
        DecodeError: the state is of another version, or has none.
    """
    found = state.get("version") if isinstance(state, Mapping) else None
    if found != STATE_VERSION:
        which = "no version" if found is None else f"version {found!r}"
        raise DecodeError(
            f"the checkpoint's state of {of} has {which}, this release reads version "
            f"{STATE_VERSION}; resume with the release that saved it, versions are in its run's "
            f"summary.json"
        )
