"""What a run asks a controller in another process, and what that answers."""

import math

import msgspec

from esper_lightning.leyline.arguments import check_number
from esper_lightning.leyline.commands import ParameterValue
from esper_lightning.leyline.errors import InvalidArgument
from esper_lightning.leyline.stages import CommandKind
from esper_lightning.leyline.state import SystemState


class Question(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="question"):
    """What is to be done at this boundary?

    Attributes:
        run_id: the run.
        attempt: tells a resumed run from the one before, which may have asked about this epoch too.
        epoch: 0-based epoch that has just ended.
        deadline_s: seconds from now after which no answer counts.
        state: what the controller may look at.

    Raises:
        InvalidArgument: the deadline is not finite or not positive.
    """

    run_id: str
    attempt: str
    epoch: int
    deadline_s: float
    state: SystemState

    def __post_init__(self) -> None:
        check_number("deadline_s of a question", self.deadline_s)
        if not 0 < self.deadline_s < math.inf:
            raise InvalidArgument(
                f"deadline_s of a question is finite and more than 0 seconds, got {self.deadline_s}"
            )


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the controller wants done. The run decides whether it may be.

    Attributes:
        kind: what to do; NOOP is the choice to wait.
        slot: module path; empty for NOOP and ROLLBACK.
        blueprint: what to plant (GERMINATE only).
        parameters: constructor parameters of the blueprint.
        reason: why, in words.
        log_probability: natural logarithm; None where the policy does not define one.
        value: what the policy expects of the run from here on, if it expects something.
        share: of what is left of the budget, what a planting is given, if the policy chooses it.
    """

    kind: CommandKind
    slot: str = ""
    blueprint: str = ""
    parameters: dict[str, ParameterValue] = {}
    reason: str = ""
    log_probability: float | None = None
    value: float | None = None
    share: float | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="answer"):
    """What a controller answers.

    Attributes:
        run_id: of the question.
        attempt: of the question.
        epoch: of the question.
        policy: name of the policy that decided.
        policy_version: of that policy, None where it has none.
        choices: at most one for each slot.
    """

    run_id: str
    attempt: str
    epoch: int
    policy: str
    policy_version: int | None = None
    choices: tuple[Proposal, ...] = ()
