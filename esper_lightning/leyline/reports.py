"""What travels while a run goes on: what adaptations led to, figures, alerts, new policies."""

import string
from enum import Enum

import msgspec

from esper_lightning.leyline.arguments import check_whole
from esper_lightning.leyline.errors import InvalidArgument
from esper_lightning.leyline.stages import CommandKind

_DIGEST_DIGITS = 64
_HEXADECIMAL = frozenset(string.hexdigits.lower())


class Outcome(str, Enum):
    """What an adaptation was worth, as far as its observation window shows."""

    SUCCESS = "success"
    NEUTRAL = "neutral"
    REGRESSION = "regression"
    ABORTED = "aborted"


class FieldReport(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="report"):
    """What one adaptation led to.

    Attributes:
        id: unique.
        run_id: the run.
        command_id: of the ``AdaptationCommand`` that was carried out.
        slot: module path; empty for a ROLLBACK.
        blueprint: what was planted, if anything was.
        kind: what was asked for.
        first_epoch: the first that was observed, 0-based.
        last_epoch: the last that was observed; not before ``first_epoch``.
        outcome: in one word.
        deltas: by metric, its value after the window minus where its curve was heading before, in
            the metric's own unit. What could not be measured is absent.
        mitigations: what was done about it meanwhile, in words.
        policy: name of the policy that decided.
        policy_version: of that policy, None where it has none.
        reason: why the outcome is what it is, in words.

    Raises:
        InvalidArgument: the window ends before it begins.
    """

    id: str
    run_id: str
    command_id: str
    slot: str
    blueprint: str
    kind: CommandKind
    first_epoch: int
    last_epoch: int
    outcome: Outcome
    deltas: dict[str, float] = {}
    mitigations: tuple[str, ...] = ()
    policy: str = ""
    policy_version: int | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if self.last_epoch < self.first_epoch:
            raise InvalidArgument(
                f"an observation window ends no earlier than it begins, got epochs "
                f"{self.first_epoch} to {self.last_epoch}"
            )


class PolicyUpdate(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="policy"):
    """A policy that may be installed. It names the weights and does not hold them.

    Attributes:
        name: of the policy.
        version: at least 1; only a higher one than before is installed.
        digest: SHA-256 of what the library has, 64 lower-case hexadecimal digits.
        reference: where the library has it.
        reason: why it is published, in words.

    Raises:
        InvalidArgument: the version is below 1, or the digest is none.
    """

    name: str
    version: int
    digest: str
    reference: str
    reason: str = ""

    def __post_init__(self) -> None:
        check_whole("the version of a policy", self.version, least=1)
        if len(self.digest) != _DIGEST_DIGITS or not _HEXADECIMAL.issuperset(self.digest):
            raise InvalidArgument(
                f"the digest of a policy is {_DIGEST_DIGITS} lower-case hexadecimal digits, "
                f"got {self.digest[:80]!r}"
            )


class TelemetryPacket(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="telemetry"):
    """Figures of one moment of a run, for whoever watches it. Some may be lost on the way.

    Attributes:
        run_id: the run.
        epoch: 0-based.
        step: optimiser steps so far.
        values: by name; what was not measured is absent.
        labels: what they are of, such as ``rank``.
    """

    run_id: str
    epoch: int
    step: int
    values: dict[str, float] = {}
    labels: dict[str, str] = {}


class Severity(str, Enum):
    """How soon somebody should look: ``CRITICAL`` now, ``WARNING`` in working hours."""

    WARNING = "warning"
    CRITICAL = "critical"


class Raised(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="alert"):
    """An alert was raised.

    Attributes:
        run_id: the run.
        name: of the alert, such as ``kasmina_isolation_violation``.
        severity: how soon somebody should look.
        text: what is wrong, in words, with what to do.
        values: what was measured, by name.
    """

    run_id: str
    name: str
    severity: Severity
    text: str
    values: dict[str, float] = {}
