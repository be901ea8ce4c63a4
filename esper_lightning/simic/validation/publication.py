"""Publishing a policy that passed, and withdrawing one that should not have."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from esper_lightning.leyline import EsperError, InvalidArgument, PolicyUpdate
from esper_lightning.simic.validation.digests import bytes_digest, weights_digest
from esper_lightning.simic.validation.verdict import Verdict, objections
from esper_lightning.tamiyo.learned import StoredPolicy
from esper_lightning.tamiyo.reload import publish_policy
from esper_lightning.tamiyo.reload.library import KIND, PART, WITHDRAWN, why_withdrawn
from esper_lightning.urza import Artifact, Library, LibraryError

log = logging.getLogger(__name__)

VERDICT = "verdict.json"
"""The part of a published policy that says why it was."""

TAG = "current"
"""Of the policy that was published last. What has a tag, and all before it, outlives garbage
collection, so that there is something to go back to."""

Announce = Callable[[PolicyUpdate], object]
"""Tells runs of an update, such as ``Publisher.publish`` of Oona."""


class NotPublished(EsperError):
    """A policy that must not be published; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A policy that may be used.

    Attributes:
        stored: itself.
        weights: digest of its weights.
        artifact: the library's; None for the one that comes with the package.
        verdict: on its weights, as a file; None where it was published without one.
    """

    stored: StoredPolicy
    weights: str
    artifact: Artifact | None = None
    verdict: bytes | None = None

    def __str__(self) -> str:
        if self.artifact is None:
            return f"the {self.stored.card.name!r} that comes with the package"
        return f"{self.artifact.name}@{self.artifact.version}"


def current(library: Library, name: str) -> Standing | None:
    """The policy of a name that was published last, of those whose weights are not withdrawn.

    Where the library has none, that is the one that comes with the package, if it has the name.
    What is damaged, not signed here or of another release is left out, and logged.

    Args:
        library: that runs load from.
        name: of the policy.

    Raises:
        LibraryError: the library cannot be read, or a withdrawal in it is damaged or not signed.
    """
    return _latest(library, name, _withdrawn(library, name))


def publish(
    stored: StoredPolicy,
    verdict: Verdict,
    *,
    library: Library,
    announce: Announce,
    reason: str = "",
) -> PolicyUpdate:
    """Store a policy that passed with its verdict, and tell who runs one of its name.

    It gets a version above all that library and package have of its name, or keeps its own if that
    is. If it is the current policy already, it is only announced once more; so a publication that
    was interrupted can be repeated. One process publishes at a time.

    Args:
        stored: the policy.
        verdict: on its weights, beside the policy that is current now.
        library: that runs load from.
        announce: tells them.
        reason: in words; empty takes what the verdict shows.

    Returns:
        What was announced.

    Raises:
        NotPublished: it did not pass, the verdict is on other weights or beside another policy than
            the current one, or its weights were withdrawn. Nothing was stored.
        LibraryError: it cannot be stored; nothing was announced.
    """
    weights = weights_digest(stored.network)
    name = stored.card.name
    against = objections(verdict.checks, verdict.measured, verdict.rule)
    if not verdict.passed or against:
        told = "; ".join(verdict.reasons if not verdict.passed else against)
        raise NotPublished(f"{verdict.candidate} did not pass: {told}")
    if (verdict.candidate.name, verdict.candidate.weights) != (name, weights):
        raise NotPublished(
            f"the verdict is on {verdict.candidate}, not on {name} with the weights "
            f"{weights[:12]}: validate this policy"
        )
    bad = _withdrawn(library, name)
    if weights in bad:
        raise NotPublished(f"{name} with these weights was withdrawn: {bad[weights]}")
    before = _latest(library, name, bad)
    if before is not None and before.artifact is not None and before.weights == weights:
        return _again(before.artifact, announce)
    if before is not None and before.weights != verdict.current.weights:
        raise NotPublished(
            f"the verdict is beside {verdict.current}, and {before} has taken its place since: "
            "validate the policy beside that one"
        )
    data = verdict.to_bytes()
    evidence = {
        "verdict": bytes_digest(data),
        "beside": str(verdict.current),
        "pairs": len(verdict.measured),
        "tasks": len(verdict.tasks),
    }
    return _put(
        stored,
        library,
        announce,
        provenance={"validated": evidence},
        reason=reason or verdict.reasons[0],
        before=before,
        verdict=data,
    )


def withdraw(
    name: str, number: int, *, reason: str, library: Library, announce: Announce
) -> PolicyUpdate | None:
    """Mark a published policy as one not to be used, and put the last good one in its place.

    Versions only rise, so what comes back are the earlier weights under a new version, whose
    provenance says what it replaces and why. Where a good one was published since, that one is only
    announced once more; so a withdrawal that was interrupted can be repeated.

    Args:
        name: of the policy.
        number: of it in the library, 3 of ``learned@3``.
        reason: in words.
        library: that runs load from.
        announce: tells them.

    Returns:
        What was announced; None if there is no good policy of this name, neither in the library nor
        with the package. Runs that decide by the withdrawn one then keep it.

    Raises:
        InvalidArgument: there is no such policy, or no reason.
        LibraryError: the library cannot be read or written.
    """
    if not reason:
        raise InvalidArgument("a withdrawal needs a reason in words")
    artifact = library.get(KIND, name, version=number)
    if artifact is None:
        raise InvalidArgument(
            f"there is no policy {name}@{number} in the library {library.root}; "
            "`python -m esper_lightning.urza ls` shows what is there"
        )
    if not why_withdrawn(library, name, number):
        library.put(
            WITHDRAWN,
            f"{name}@{number}",
            {},
            about={"policy": name, "reason": reason, "weights": _weights_of(artifact)},
            parents=[artifact.reference],
            tags=[TAG],
        )
        log.info("%s@%d is withdrawn: %s", name, number, reason)
    good = current(library, name)
    if good is None:
        log.warning("there is no good policy %r to go back to", name)
        return None
    if good.artifact is not None and good.artifact.version > number:
        return _again(good.artifact, announce)
    restored = {
        "of": str(good),
        "version": good.stored.card.version,
        "instead_of": f"{name}@{number}",
        "reason": reason,
    }
    return _put(
        good.stored,
        library,
        announce,
        provenance={"restored": restored},
        reason=f"{good} is back instead of {name}@{number}, which was withdrawn: {reason}",
        before=good,
        verdict=good.verdict,
    )


def _put(
    stored: StoredPolicy,
    library: Library,
    announce: Announce,
    *,
    provenance: dict[str, Any],
    reason: str,
    before: Standing | None,
    verdict: bytes | None,
) -> PolicyUpdate:
    name = stored.card.name
    version = max(stored.card.version, 1 + _newest(library, name, before))
    made = StoredPolicy.of(
        stored.network,
        name=name,
        version=version,
        provenance={**stored.card.provenance, **provenance},
    )
    parents = [] if before is None or before.artifact is None else [before.artifact.reference]
    return publish_policy(
        library,
        announce,
        made.to_bytes(),
        name=name,
        version=version,
        reason=reason,
        parents=parents,
        beside={} if verdict is None else {VERDICT: verdict},
        about={"weights": weights_digest(made.network), **provenance},
        tags=[TAG],
    )


def _withdrawn(library: Library, name: str) -> dict[str, str]:
    """Why, by the weights that were withdrawn."""
    found = {}
    for entry in library.find(WITHDRAWN):
        artifact = library.get(WITHDRAWN, entry.reference.name)
        if artifact is not None and artifact.about.get("policy") == name:
            found[str(artifact.about["weights"])] = str(artifact.about["reason"])
    return found


def _latest(library: Library, name: str, bad: dict[str, str]) -> Standing | None:
    for artifact in _artifacts(library, name):
        try:
            stored = StoredPolicy.from_bytes(artifact.read(PART))
            verdict = artifact.read(VERDICT) if VERDICT in artifact.parts else None
        except EsperError as error:
            log.warning("%s is left out: %s", artifact.reference, error)
            continue
        weights = weights_digest(stored.network)
        if weights not in bad:
            return Standing(stored=stored, weights=weights, artifact=artifact, verdict=verdict)
    stored = StoredPolicy.load()
    weights = weights_digest(stored.network)
    if stored.card.name != name or weights in bad:
        return None
    return Standing(stored=stored, weights=weights)


def _artifacts(library: Library, name: str) -> list[Artifact]:
    """Those of the policy that were published and can be read, the newest first."""
    found = []
    for entry in library.find(KIND):
        if entry.reference.name != name:
            continue
        try:
            artifact = library.get(KIND, name, version=entry.reference.version)
        except LibraryError as error:
            log.warning("%s is left out: %s", entry.reference, error)
            continue
        if artifact is not None and isinstance(artifact.about.get("version"), int):
            found.append(artifact)
    return found[::-1]


def _newest(library: Library, name: str, before: Standing | None) -> int:
    """The highest version that a run may have, as far as library and package tell."""
    told = [int(each.about["version"]) for each in _artifacts(library, name)]
    packaged = StoredPolicy.load().card
    told += [packaged.version] if packaged.name == name else []
    return max([*told, 0 if before is None else before.stored.card.version])


def _weights_of(artifact: Artifact) -> str:
    """Of a policy that may be of another release, or damaged: then by what was said of it."""
    told = artifact.about.get("weights")
    if told is not None:
        return str(told)
    try:
        return weights_digest(StoredPolicy.from_bytes(artifact.read(PART)).network)
    except EsperError as error:
        log.warning("the weights of %s cannot be told: %s", artifact.reference, error)
        return ""


def _again(artifact: Artifact, announce: Announce) -> PolicyUpdate:
    """Announce what is stored."""
    update = PolicyUpdate(
        name=artifact.name,
        version=artifact.about["version"],
        digest=artifact.parts[PART].sha256,
        reference=f"{artifact.name}@{artifact.version}",
        reason=str(artifact.about.get("reason", "")),
    )
    announce(update)
    return update
