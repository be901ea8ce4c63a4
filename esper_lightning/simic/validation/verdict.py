"""What became of a validation, with all that it was decided by."""

import msgspec

from esper_lightning.leyline import DecodeError, decode, pretty
from esper_lightning.simic.validation.checks import Check, Timing
from esper_lightning.simic.validation.comparison import Difference, Measured
from esper_lightning.simic.validation.digests import bytes_digest, weights_digest
from esper_lightning.simic.validation.rule import Rule, differences, shortfalls, unfit
from esper_lightning.tamiyo.learned import StoredPolicy

FORMAT = 1
"""Of verdicts; another one is refused."""


class Judged(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which policy it was.

    Attributes:
        name: on its card.
        version: likewise.
        digest: SHA-256 of its file.
        weights: SHA-256 of its weights alone, which do not change with a version.
    """

    name: str
    version: int
    digest: str
    weights: str

    @classmethod
    def of(cls, stored: StoredPolicy) -> "Judged":
        """Of a policy."""
        return cls(
            name=stored.card.name,
            version=stored.card.version,
            digest=bytes_digest(stored.to_bytes()),
            weights=weights_digest(stored.network),
        )

    def __str__(self) -> str:
        return f"{self.name} version {self.version} ({self.weights[:12]})"


class Verdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether a policy may be published, and why.

    Attributes:
        passed: it may.
        reasons: in words: what was shown if it passed, otherwise what speaks against it.
        candidate: the policy.
        current: the policy that it would replace.
        rule: what had to be shown.
        checks: of the candidate's conduct.
        timing: of its decisions on states that no run should have; it is not judged.
        differences: of utility, over all pairs; none where data are missing.
        measured: every utility.
        tasks: options of each task, by name.
        versions: of what ran it, by package.
        format: of this message.
    """

    passed: bool
    reasons: tuple[str, ...]
    candidate: Judged
    current: Judged
    rule: Rule
    checks: tuple[Check, ...]
    timing: Timing
    differences: tuple[Difference, ...]
    measured: tuple[Measured, ...]
    tasks: dict[str, tuple[str, ...]]
    versions: dict[str, str]
    format: int = FORMAT

    def to_bytes(self) -> bytes:
        """As indented JSON."""
        return pretty(self)

    @classmethod
    def from_bytes(cls, data: bytes, *, what: str = "the verdict") -> "Verdict":
        """Read what :meth:`to_bytes` wrote.

        Raises:
            DecodeError: it is no verdict of this release, or says that a policy passed that does
                not by its own evidence.
        """
        found: Verdict = decode(data, cls, what=what)
        if found.format != FORMAT:
            raise DecodeError(f"{what} has format {found.format}; this release reads {FORMAT}")
        if found.passed and objections(found.checks, found.measured, found.rule):
            raise DecodeError(
                f"{what} says that the policy passed, which its own evidence does not: it was "
                "changed; validate the policy again"
            )
        return found


def objections(
    checks: tuple[Check, ...], measured: tuple[Measured, ...], rule: Rule
) -> tuple[str, ...]:
    """What speaks against a policy by the evidence, in words; empty where nothing does.

    Of one whose conduct is not what it must be, what it reached is not looked at.
    """
    if not checks:
        return ("its conduct was not checked",)
    found = [str(check) for check in checks if not check.passed] or unfit(measured, rule)
    return tuple(found or shortfalls(differences(measured, rule), rule))
