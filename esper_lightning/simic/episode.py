"""An episode: what one run teaches about the decisions that were made in it."""

from dataclasses import dataclass

from esper_lightning.tamiyo.learned import Action
from esper_lightning.tamiyo.observation import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One boundary at which a policy decided.

    Attributes:
        observation: what it saw.
        actions: what it chose; the last is NOOP.
        log_probability: natural logarithm, of all of them together, under the policy that chose.
        version: of that policy.
        potential: utility of the run as it stood at this boundary, before what was chosen.
    """

    observation: Observation
    actions: tuple[Action, ...]
    log_probability: float
    version: int
    potential: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One run, or its part that is known.

    Rewards are differences of utility from one boundary to the next, so that their sum is
    ``utility - steps[0].potential`` whatever was done between.

    Attributes:
        id: SHA-256 that names the run and this attempt at it; the same run has the same.
        task: what was trained, for tables and for choosing among episodes.
        seed: of the run, which its twin without growth shares.
        policy: name of the policy.
        steps: in order, at least one.
        utility: of the network that the run ended with; of the last state that is known, where it
            was cut off.
        terminated: whether it ended; what was cut off would have gone on, so that the value of its
            last state counts.
        tail: what was seen last, of a run that was cut off; None of one that ended.
    """

    id: str
    task: str
    seed: int
    policy: str
    steps: tuple[Step, ...]
    utility: float
    terminated: bool = True
    tail: Observation | None = None

    @property
    def rewards(self) -> tuple[float, ...]:
        """One a step: how much the utility rose until the next, or until the end."""
        ends = (*(step.potential for step in self.steps[1:]), self.utility)
        return tuple(after - step.potential for step, after in zip(self.steps, ends, strict=True))
