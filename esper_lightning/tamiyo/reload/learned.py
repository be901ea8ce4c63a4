"""The learned policy of a configuration: from a file or the library, alone or replaced by newer."""

import re
from pathlib import Path
from typing import Any

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_flag
from esper_lightning.tamiyo.learned import Learned, StoredPolicy
from esper_lightning.tamiyo.policy import Policy
from esper_lightning.tamiyo.reload.bus import BusPolicies
from esper_lightning.tamiyo.reload.library import KIND, PART, from_library, why_withdrawn
from esper_lightning.tamiyo.reload.reloading import Reloading
from esper_lightning.urza import Library, default_root

_IN_LIBRARY = re.compile(r"([\w.-]+)@([1-9][0-9]{0,17})")


def learned_policy(
    *,
    policy: Path | str | None = None,
    updates: bool = False,
    url: str = "auto",
    folder: Path | str | None = None,
    library: Path | str | None = None,
    **options: Any,
) -> Policy:
    """A learned policy, which newer versions may replace between epochs.

    Args:
        policy: a file; or name and number of an artifact of the library, ``learned@3``; None is the
            policy that comes with this package, ``cloned`` what that began with.
        updates: newer versions that are published on the bus take over.
        url: of the bus, as ``oona.url``.
        folder: where an embedded bus of this run has its files.
        library: folder of the library; None takes the user's own.
        **options: as of :class:`~esper_lightning.tamiyo.learned.Learned`.

    Raises:
        InvalidArgument: there is no such file or artifact, or an option is not allowed.
        DecodeError: it is no policy of this release.
        LibraryError: the artifact is damaged, not signed or cannot be read.
    """
    check_flag("updates", updates)
    root = default_root() if library is None else Path(library)
    reference = _IN_LIBRARY.fullmatch(str(policy)) if policy is not None else None
    if reference is not None and not Path(str(policy)).exists():
        stored = _in_library(root, reference[1], int(reference[2]))
    else:
        stored = StoredPolicy.load(policy)
    first = Learned(policy=stored, **options)
    if not updates:
        return first
    return Reloading(
        first,
        source=BusPolicies(url=url, folder=folder),
        load=from_library(Library(root), lambda data: Learned.from_bytes(data, **options)),
        version=first.card.version,
    )


def _in_library(root: Path, name: str, number: int) -> StoredPolicy:
    artifact = Library(root).get(KIND, name, version=number) if root.is_dir() else None
    if artifact is None or PART not in artifact.parts:
        raise InvalidArgument(
            f"there is no policy {name}@{number} in the library {root}; "
            "`python -m esper_lightning.urza ls` shows what is there"
        )
    why = why_withdrawn(Library(root), name, number)
    if why:
        raise InvalidArgument(f"{name}@{number} was withdrawn: {why}; use another version")
    return StoredPolicy.from_bytes(artifact.read(PART))
