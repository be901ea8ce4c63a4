"""Policies in the library: how one is published, and how the one that was published is fetched."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from esper_lightning.leyline import PolicyUpdate
from esper_lightning.leyline.arguments import check_whole
from esper_lightning.tamiyo.policy import Policy
from esper_lightning.tamiyo.reload.checking import PolicyRefused
from esper_lightning.urza import Artifact, Library, Reference

KIND = "policy"
"""Of the artifacts that are policies."""

PART = "policy"
"""The part of such an artifact that is read."""

WITHDRAWN = "withdrawn_policy"
"""Of the artifacts that say that a policy must not be used any more; they have its reference as
their name. A policy itself never changes once it is stored."""

MAX_POLICY_BYTES = 2**28
"""A larger one is not read: it would take the memory that training needs."""

_REFERENCE = re.compile(r"(.+)@([1-9][0-9]{0,17})", re.DOTALL)


def publish_policy(
    library: Library,
    publish: Callable[[PolicyUpdate], object],
    data: bytes,
    *,
    name: str,
    version: int,
    reason: str,
    parents: Iterable[Reference] = (),
    beside: Mapping[str, bytes] | None = None,
    about: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
) -> PolicyUpdate:
    """Store a policy, then tell who runs it.

    Args:
        library: that runs load from.
        publish: sends the update, such as ``Publisher.publish`` of Oona.
        data: the policy.
        name: of the policy, as in decisions.
        version: above all that were published before.
        reason: why it is published, in words.
        parents: what it was made from.
        beside: what else is stored with it, by name, such as what it was published for.
        about: what else to remember of it, JSON.
        tags: to give to it, taken from the version of it that had them.

    Returns:
        What was published.

    Raises:
        InvalidArgument: name or version is not allowed, or a parent is not there.
        LibraryError: it cannot be stored; nothing was published.
    """
    check_whole("the version of a policy", version, least=1)
    artifact = library.put(
        KIND,
        name,
        {**(beside or {}), PART: data},
        about={**(about or {}), "version": version, "reason": reason},
        parents=parents,
        tags=tags,
    )
    update = PolicyUpdate(
        name=name,
        version=version,
        digest=artifact.parts[PART].sha256,
        reference=f"{name}@{artifact.version}",
        reason=reason,
    )
    publish(update)
    return update


def why_withdrawn(library: Library, name: str, number: int) -> str:
    """Why a policy of the library must not be used any more; empty where it may be.

    Args:
        library: that has it.
        name: of the policy.
        number: of its artifact, 3 of ``learned@3``.

    Raises:
        LibraryError: what says so is damaged or not signed, or the library cannot be read.
    """
    found = library.get(WITHDRAWN, f"{name}@{number}")
    return "" if found is None else str(found.about.get("reason", "no reason is told"))


def from_library(
    library: Library, make: Callable[[bytes], Policy]
) -> Callable[[PolicyUpdate], Policy]:
    """What fetches, verifies and builds the policy of an update.

    An update's reference is the name and number of an artifact, ``learned@7``. The artifact must be
    that policy in that version, and its bytes those of the digest: an update that is authentic
    cannot install what was stored as something else.

    Args:
        library: where they are stored.
        make: builds a policy from its bytes; raises where they are none that runs here.

    Returns:
        A function that raises ``PolicyRefused`` where the update does not fit what is stored,
        ``LibraryError`` where that is damaged, not signed or cannot be read, and what ``make``
        raises.
    """

    def load(update: PolicyUpdate) -> Policy:
        artifact = _artifact(library, update)
        part = artifact.parts.get(PART)
        if part is None:
            raise PolicyRefused(f"{artifact.reference} has no part {PART!r}, so it is no policy")
        if part.sha256 != update.digest:
            raise PolicyRefused(
                f"{artifact.reference} has the digest {part.sha256[:12]}... and the update says "
                f"{update.digest[:12]}...: it is not what was published"
            )
        if part.size > MAX_POLICY_BYTES:
            raise PolicyRefused(
                f"{artifact.reference} has {part.size} bytes; at most {MAX_POLICY_BYTES} are read"
            )
        return make(artifact.read(PART))

    return load


def _artifact(library: Library, update: PolicyUpdate) -> Artifact:
    match = _REFERENCE.fullmatch(update.reference)
    if match is None or match[1] != update.name:
        raise PolicyRefused(
            f"the reference {update.reference[:80]!r} names no version of {update.name[:80]!r}; "
            f"it is such as '{update.name[:80]}@1'"
        )
    artifact = library.get(KIND, update.name, version=int(match[2]))
    if artifact is None:
        raise PolicyRefused(
            f"{update.reference[:80]!r} is not in the library {library.root}; publish into the "
            "library that this run reads"
        )
    told = artifact.about.get("version")
    if told != update.version:
        raise PolicyRefused(
            f"{artifact.reference} was stored as version {told} of the policy and the update says "
            f"{update.version}"
        )
    return artifact
