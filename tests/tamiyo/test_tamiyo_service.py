import time
from typing import Any

from test_tamiyo_replay import state

from esper_lightning.leyline import (
    Answer,
    CommandKind,
    EventEnvelope,
    Question,
    Signer,
    SystemState,
    pack,
    unpack,
    unseal,
)
from esper_lightning.oona import FIELD, Received, Settings
from esper_lightning.tamiyo import Answers, Choice, Policy, service

SIGNER = Signer(b"the key of these tests")


class Counting(Policy):
    """Says how often it was asked, and what it would not do."""

    name = "counting"

    def __init__(self) -> None:
        self.asked = 0

    def decide(self, state: SystemState) -> list[Choice]:
        self.asked += 1
        told = Choice(kind=CommandKind.NOOP, reason=f"asked {self.asked} times")
        return [told, Choice(kind=CommandKind.CULL, slot="a", reason="no", refused="too dear")]


class Transaction:
    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def xadd(self, stream: str, fields: dict[bytes, bytes]) -> None:
        self.sent.append(fields[FIELD])


def ask(answers: Answers, attempt: str, epoch: int = 0) -> tuple[EventEnvelope, Any]:
    question = Question(
        run_id="run", attempt=attempt, epoch=epoch, deadline_s=1.0, state=state(epoch)
    )
    envelope = EventEnvelope(
        id="q", kind="question", source="run", created_at=time.time(), ttl_s=1.0,
        payload=pack(question),
    )  # fmt: skip
    transaction = Transaction()
    answers(Received(envelope, question), transaction)
    (sealed,) = transaction.sent
    told = unseal(sealed, SIGNER, stream="normal")
    return told, unpack(told.payload, Answer, what="an answer")


def test_an_answer_names_its_question_and_leaves_out_what_the_policy_refused() -> None:
    envelope, answer = ask(Answers(Counting, Settings(), SIGNER), "first", epoch=3)
    assert envelope.correlation_id == "q"
    assert (answer.run_id, answer.attempt, answer.epoch) == ("run", "first", 3)
    assert [each.kind for each in answer.choices] == [CommandKind.NOOP]


def test_each_attempt_has_a_policy_that_remembers() -> None:
    answers = Answers(Counting, Settings(), SIGNER)
    reasons = [ask(answers, attempt)[1].choices[0].reason for attempt in ("a", "b", "a")]
    assert reasons == ["asked 1 times", "asked 1 times", "asked 2 times"]


def test_runs_are_forgotten_in_time(monkeypatch: Any) -> None:
    monkeypatch.setattr(service, "MAX_RUNS", 2)
    answers = Answers(Counting, Settings(), SIGNER)
    for attempt in ("a", "b", "c", "a"):
        _, answer = ask(answers, attempt)
    assert answer.choices[0].reason == "asked 1 times"
