"""A controller in another process: asked over the bus, with a deadline."""

import logging
import secrets
import time
from pathlib import Path

from esper_lightning.leyline import (
    Answer,
    BusUnavailable,
    CommandKind,
    EsperError,
    InvalidArgument,
    Proposal,
    Question,
    SystemState,
)
from esper_lightning.oona import (
    FIELD,
    Admission,
    Breaker,
    Received,
    Refused,
    Role,
    Settings,
    alarm,
    connect,
    envelope_of,
    sealed,
)
from esper_lightning.tamiyo.policy import Choice, Policy, wait

log = logging.getLogger(__name__)

_ROLE = Role.NORMAL


class Remote(Policy):
    """Asks a controller in another process, and waits for it no longer than the deadline.

    Each boundary is a question of its own, with an id that nobody could know before: an answer
    counts if it is authentic, names that question, this run, this attempt at it and this epoch, and
    is the first. Any other changes nothing. Where none comes in time, the policy's choice is to do
    nothing; an answer that comes later is recorded and dropped. After three boundaries without one
    it asks without waiting for a while.

    Where the bus itself hangs, a boundary may wait for it half a second longer, and up to three
    where it has to be joined anew.

    Start the other process with ``python -m esper_lightning.tamiyo serve``.

    Args:
        url: of the bus, as ``oona.url``.
        folder: where an embedded bus of this run has its files.
        deadline_s: seconds that a boundary may wait.

    Attributes:
        num_late: answers that came after their deadline.
        num_unanswered: boundaries at which none came in time.

    Raises:
        InvalidArgument: the deadline is not positive; at the first boundary, the url is none.
        KeyRequired: at the first boundary, the bus is shared and there is no key to sign with.
    """

    name = "remote"

    def __init__(
        self, *, url: str = "auto", folder: Path | str | None = None, deadline_s: float = 2.0
    ) -> None:
        if not deadline_s > 0:
            raise InvalidArgument(f"deadline_s is more than 0 seconds, got {deadline_s}")
        self.deadline_s = deadline_s
        self.num_late = 0
        self.num_unanswered = 0
        self._url = url
        self._folder = None if folder is None else Path(folder)
        self._attempt = secrets.token_hex(8)
        self._line: _Line | None = None
        self._breaker = Breaker(failures=3, wait_s=10 * deadline_s, most_s=100 * deadline_s)
        self._asked: dict[str, int] = {}

    def decide(self, state: SystemState) -> list[Choice]:
        """What the controller answers; to wait where it does not."""
        is_trial = self._breaker.allows()
        if self._line is None and not is_trial:
            self.num_unanswered += 1
            return wait("the bus could not be reached, and it is too early to try again")
        began = time.monotonic()
        patience = self.deadline_s if is_trial else 0.0
        answer: list[Choice] | None = None
        late: list[Choice] = []
        try:
            if self._line is None:
                self._line = _Line(self._url, self._folder)
            question = Question(
                run_id=state.run_id,
                attempt=self._attempt,
                epoch=state.epoch,
                deadline_s=self.deadline_s,
                state=state,
            )
            asked = self._line.ask(question)
            self._asked[asked] = state.epoch
            answer, late = self._listen(asked, state, until=began + patience)
        except BusUnavailable as error:
            log.warning("the controller cannot be asked: %s", error)
            if not is_trial:  # until then the client itself connects again
                self._hang_up()
        waited_s = time.monotonic() - began
        if answer is None:
            self.num_unanswered += 1
            if is_trial:  # one that nobody waited for says nothing
                self._breaker.failed()
            return [*wait(f"no answer of the controller within {waited_s:.2f} s"), *late]
        self._breaker.succeeded()
        return [*answer, *late]

    def _listen(
        self, asked: str, state: SystemState, *, until: float
    ) -> tuple[list[Choice] | None, list[Choice]]:
        assert self._line is not None
        late: list[Choice] = []
        while True:
            for received in self._line.hear(until):
                if not isinstance(received.message, Answer):
                    continue
                question, given = received.envelope.correlation_id, received.message
                if question == asked and _matches(given, state, self._attempt):
                    del self._asked[asked]
                    return _choices(given), late
                if question in self._asked and question != asked:
                    late += self._dropped(given, self._asked.pop(question))
            if time.monotonic() >= until:
                return None, late

    def _dropped(self, answer: Answer, epoch: int) -> list[Choice]:
        self.num_late += 1
        why = f"the answer to epoch {epoch} came after its deadline of {self.deadline_s} s"
        log.warning("%s; it is dropped", why)
        try:
            version = answer.policy_version
            return [_choice(each, version, refused=why) for each in answer.choices]
        except InvalidArgument as error:
            log.warning("nor does it make sense: %s", error)
            return []

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def distrust(self) -> str:
        """That forged messages come in a row, while they do."""
        if self._line is None or not self._line.is_conservative:
            return ""
        return "forged messages in a row on the bus"

    def close(self) -> None:
        """Let go of the bus; the next question takes hold of it again."""
        self._hang_up()


class _Line:
    """One connection: asks on the normal stream, and hears what comes after the question."""

    def __init__(self, url: str, folder: Path | None) -> None:
        settings = Settings.from_environment(url)
        self._stream = settings.streams[_ROLE]
        self._connection = connect(settings.url, folder=folder)
        try:
            self._signer = self._connection.signer()
        except EsperError:
            self._connection.close()
            raise
        told = alarm(self._connection, settings, self._signer, source="remote")
        self._admission = Admission(self._signer, on_forged=told)
        self._last: bytes | None = None

    @property
    def is_conservative(self) -> bool:
        """Whether nothing of what comes is taken."""
        return self._admission.is_conservative

    def ask(self, question: Question) -> str:
        """Send it; its id."""
        envelope = envelope_of(question, source=question.run_id)
        entry = self._connection.add(self._stream, {FIELD: sealed(envelope, self._signer)})
        self._last = self._last or entry
        return envelope.id

    def hear(self, until: float) -> list[Received]:
        """What came since, or comes before ``until``; nothing in conservative mode."""
        # 0 would be for ever.
        block = max(1, int(1000 * min(until - time.monotonic(), 0.2)))
        assert self._last is not None
        entries = self._connection.read(self._stream, after=self._last, block_ms=block)
        received = []
        for entry_id, fields in entries:
            self._last = entry_id
            try:
                received.append(self._admission.admit(_ROLE, fields.get(FIELD), remember=True))
            except Refused as refused:
                log.debug("%s", refused)
        return [] if self.is_conservative else received

    def close(self) -> None:
        self._connection.close()


def _matches(answer: Answer, state: SystemState, attempt: str) -> bool:
    return (answer.run_id, answer.attempt, answer.epoch) == (state.run_id, attempt, state.epoch)


def _choices(answer: Answer) -> list[Choice]:
    """What is to be done. An answer that says nothing, or too much for one slot, is to wait."""
    try:
        choices = [_choice(each, answer.policy_version) for each in answer.choices]
    except InvalidArgument as error:
        return wait(f"the controller's answer makes no sense: {error}")
    return choices or wait("the controller answered with no choice")


def _choice(proposal: Proposal, version: int | None, *, refused: str = "") -> Choice:
    return Choice(
        kind=CommandKind(proposal.kind),
        slot=proposal.slot,
        blueprint=proposal.blueprint,
        parameters=proposal.parameters,
        reason=proposal.reason or "the controller gave no reason",
        log_probability=proposal.log_probability,
        refused=refused,
        value=proposal.value,
        policy_version=version,
        share=proposal.share,
    )
