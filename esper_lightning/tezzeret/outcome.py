"""What was decided about a recipe: compiled or eager, and why."""

import msgspec

from esper_lightning.urza import Artifact

KIND = "compiled"
"""Of the artifacts in the library; decisions to stay eager are among them, without parts."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The decision about one recipe on one machine.

    Attributes:
        is_compiled: whether compiled code is kept; otherwise the branch runs eager.
        reason: why, with the figure that decided.
        seconds: that it took to decide.
        speedup: eager over compiled, forward and backward; None where it was not measured.
        eager_ms: a forward and backward pass in eager.
        compiled_ms: the same compiled.
        errors: of compiled code by tensor, against float64, relative to the largest value.
    """

    is_compiled: bool
    reason: str
    seconds: float = 0.0
    speedup: float | None = None
    eager_ms: float | None = None
    compiled_ms: float | None = None
    errors: dict[str, float] = {}


def of_artifact(artifact: Artifact) -> Outcome:
    """The outcome that an artifact of the library records."""
    return msgspec.convert(dict(artifact.about), Outcome)
