"""The other end of :class:`~esper_lightning.tamiyo.Remote`: a policy that answers over the bus."""

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from esper_lightning.leyline import Answer, Proposal, Question, Signer
from esper_lightning.oona import FIELD, Received, Role, Settings, envelope_of, sealed
from esper_lightning.tamiyo.policy import Choice, Policy

log = logging.getLogger(__name__)

GROUP = "tamiyo"
"""The consumer group of controllers; one member at a time, since a policy remembers its runs."""

MAX_RUNS = 1000
"""Runs that are remembered, those asked about last."""


class Answers:
    """Answers questions with a policy of its own for each attempt at a run.

    To be given to a consumer of the group :data:`GROUP` as the handler of ``question``: the answer
    is sent in the transaction that acknowledges its question, so each question is answered once.

    Args:
        make_policy: makes the policy of a run that is new here.
        settings: streams.
        signer: signs the answers.
    """

    def __init__(
        self, make_policy: Callable[[], Policy], settings: Settings, signer: Signer
    ) -> None:
        self._make_policy = make_policy
        self._stream = settings.streams[Role.NORMAL]
        self._signer = signer
        self._policies: OrderedDict[tuple[str, str], Policy] = OrderedDict()

    def __call__(self, received: Received, transaction: Any) -> None:
        """Answer one question.

        Raises:
            Exception: whatever the policy raises.
        """
        question: Question = received.message
        policy = self._policy_of(question)
        choices = policy.decide(question.state)
        answer = Answer(
            run_id=question.run_id,
            attempt=question.attempt,
            epoch=question.epoch,
            policy=policy.name,
            policy_version=choices[0].policy_version,
            choices=tuple(_proposal(each) for each in choices if not each.refused),
        )
        envelope = envelope_of(answer, source="tamiyo", correlation_id=received.envelope.id)
        transaction.xadd(self._stream, {FIELD: sealed(envelope, self._signer)})
        log.info(
            "%s, epoch %d: %s", question.run_id, question.epoch, [c.kind.name for c in choices]
        )

    def _policy_of(self, question: Question) -> Policy:
        run = (question.run_id, question.attempt)
        if run not in self._policies:
            self._policies[run] = self._make_policy()
            if len(self._policies) > MAX_RUNS:
                self._policies.popitem(last=False)
        self._policies.move_to_end(run)
        return self._policies[run]


def _proposal(choice: Choice) -> Proposal:
    return Proposal(
        kind=choice.kind,
        slot=choice.slot,
        blueprint=choice.blueprint,
        parameters=choice.parameters,
        reason=choice.reason,
        log_probability=choice.log_probability,
        value=choice.value,
        share=choice.share,
    )
