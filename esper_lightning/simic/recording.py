"""A finished run and its twin, as they are kept: from them episodes are made, now and later.

States and decisions are kept, not observations, so that a recording outlives the features of a
release.
"""

import hashlib
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from esper_lightning.karn import CATALOGUE, Blueprint
from esper_lightning.leyline import (
    Decision,
    DecodeError,
    Event,
    InvalidArgument,
    RunEnded,
    RunSummary,
    SystemState,
    decode,
    encode,
)
from esper_lightning.nissa.journal import JOURNAL_NAME, read_journal, timeline
from esper_lightning.simic.episode import Episode, Step
from esper_lightning.simic.reward import Standing, Utility, ending, standing
from esper_lightning.tamiyo import GrowthBudget
from esper_lightning.tamiyo.heuristic import BUDGET
from esper_lightning.tamiyo.learned import actions_of
from esper_lightning.tamiyo.observation import Observation, Observer
from esper_lightning.tamiyo.policy import Choice
from esper_lightning.tamiyo.recorded import choice_of, recorded
from esper_lightning.tamiyo.shortlist import Shortlist
from esper_lightning.tamiyo.trial import is_last

SUMMARY_NAME = "summary.json"
"""Beside the journal, of a run that came to its end."""

FINISHED = "finished"

MAX_BYTES = 2**26
"""Of a recording, unpacked."""


class Boundary(msgspec.Struct, frozen=True, kw_only=True):
    """What a controller saw, and what was decided."""

    state: SystemState
    decisions: tuple[Decision, ...]


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """One run beside its twin, and where it comes from.

    Attributes:
        task: what was trained.
        seed: of run and twin.
        run_id: of the run.
        policy: name of what decided.
        boundaries: in order.
        twin: the host alone, epoch by epoch.
        end: where the run stood when it was over; None where it was cut off.
        twin_end: the same of the twin, which is never cut off.
        config_digest: of the run's configuration.
        versions: of the packages that it ran on.
        source: in words: a folder, or a bus.
    """

    task: str
    seed: int
    run_id: str
    policy: str
    boundaries: tuple[Boundary, ...]
    twin: tuple[Standing, ...]
    end: Standing | None
    twin_end: Standing
    config_digest: str = ""
    versions: dict[str, str] = {}
    source: str = ""

    @property
    def id(self) -> str:
        """SHA-256 of the run and what was decided in it: the same run again has the same."""
        told = encode((self.run_id, self.task, self.seed, self.boundaries))
        return hashlib.sha256(told).hexdigest()

    @property
    def version(self) -> int:
        """Of the oldest policy that decided; 0 where none has a version."""
        return min(
            (
                each.policy_version
                for boundary in self.boundaries
                for each in boundary.decisions
                if each.policy_version is not None
            ),
            default=0,
        )

    def to_bytes(self) -> bytes:
        """Packed and compressed."""
        return zlib.compress(msgspec.msgpack.encode(self), level=6)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Recording":
        """What :meth:`to_bytes` made.

        Raises:
            DecodeError: it is damaged, too large, or of another release.
        """
        try:
            opened = zlib.decompressobj()
            told = opened.decompress(data, MAX_BYTES)
            if not opened.eof:
                raise DecodeError(f"a recording has at most {MAX_BYTES:,} bytes, or it is torn")
            return msgspec.msgpack.decode(told, type=cls)
        except (zlib.error, msgspec.MsgspecError) as error:
            raise DecodeError(f"this is no recording of this release: {error}") from error


def read(run: Path, twin: Path, *, task: str, seed: int) -> Recording:
    """From the folders of two runs.

    Args:
        run: with ``events.jsonl``, and ``summary.json`` if it came to its end.
        twin: the same configuration and seed with ``tamiyo=never``, at its end.
        task: its name.
        seed: of both.

    Raises:
        InvalidArgument: the twin did not come to its end, or something grew in it.
        DecodeError: a file is damaged.
        FileNotFoundError: there is no such run.
    """
    events = timeline(read_journal(run / JOURNAL_NAME))
    alone, beside = _states(timeline(read_journal(twin / JOURNAL_NAME))), _summary(twin)
    if beside is None or not alone or beside.outcome != FINISHED or beside.grown:
        why = "grew" if beside is not None and beside.grown else "did not come to its end"
        raise InvalidArgument(f"{twin} is no twin: it {why}; train it with tamiyo=never")
    summary = _summary(run)
    ended = any(isinstance(each, RunEnded) and each.outcome == FINISHED for each in events)
    objective = alone[-1].objective.name
    boundaries = tuple(
        Boundary(state=each.state, decisions=tuple(each.decisions)) for each in recorded(events)
    )
    return Recording(
        task=task,
        seed=seed,
        run_id=events[0].run_id if events else "",
        policy=decider(boundaries),
        boundaries=boundaries,
        twin=tuple(map(standing, alone)),
        end=ending(summary, objective) if summary is not None and ended else None,
        twin_end=ending(beside, objective),
        config_digest=summary.config_digest if summary is not None else "",
        versions=dict(summary.versions) if summary is not None else {},
        source=run.name,
    )


def episode(
    recording: Recording,
    *,
    utility: Utility | None = None,
    budget: GrowthBudget = BUDGET,
    catalogue: Mapping[str, Blueprint] = CATALOGUE,
) -> Episode | None:
    """What a run teaches; None where no policy with probabilities decided in it.

    A boundary is a step where all that was decided is the policy's own, with its log-probability.
    Where the risk engine chose instead, what came of it counts to the step before.

    Args:
        recording: of the run.
        utility: what it is measured by.
        budget: limits of growth, those of the policy.
        catalogue: of the blueprints that were planted.

    Raises:
        InvalidArgument: the twin is of another run; no ratio can be told.
    """
    measure = utility or Utility()
    states = [each.state for each in recording.boundaries]
    if not states:
        return None
    mode = states[0].objective.mode
    potentials = measure.curve(list(map(standing, states)), recording.twin, mode=mode)
    observer = Observer(Shortlist(catalogue=catalogue), budget)
    steps: list[Step] = []
    tail: Observation | None = None
    for number, (boundary, potential) in enumerate(
        zip(recording.boundaries, potentials, strict=True), start=1
    ):
        state = boundary.state
        seen = observer.observe(state)
        if recording.end is None and number == len(states):
            tail = seen
            break
        if is_last(state):
            continue
        own = [each for each in boundary.decisions if each.policy == recording.policy]
        choices = list(map(choice_of, own))
        if len(own) == len(boundary.decisions):
            steps += _step(own, choices, seen, state, potential=potential, catalogue=catalogue)
        observer.note(state, choices)
    if not steps:
        return None
    end = potentials[-1]
    if recording.end is not None:
        if recording.end.value is None and recording.twin_end.value is None:
            raise InvalidArgument(
                f"neither run {recording.run_id!r} nor its twin has an objective at its end: they "
                "were not validated, or both broke; leave this task out"
            )
        end = measure.of([recording.end], [recording.twin_end], mode=mode)
    return Episode(
        id=recording.id,
        task=recording.task,
        seed=recording.seed,
        policy=recording.policy,
        steps=tuple(steps),
        utility=end,
        terminated=recording.end is not None,
        tail=tail,
    )


def episode_of(
    run: Path, twin: Path, *, task: str, seed: int, utility: Utility | None = None
) -> Episode | None:
    """:func:`episode` of :func:`read`."""
    return episode(read(run, twin, task=task, seed=seed), utility=utility)


def _step(
    own: Sequence[Decision],
    choices: Sequence[Choice],
    seen: Observation,
    state: SystemState,
    *,
    potential: float,
    catalogue: Mapping[str, Blueprint],
) -> list[Step]:
    """The boundary as a step; none where what was chosen is no choice of a learned policy."""
    told = [each.log_probability for each in own]
    known = [each for each in told if each is not None and math.isfinite(each)]
    actions = actions_of(seen, choices, state=state, catalogue=catalogue)
    version = own[0].policy_version if own else None
    if version is None or len(known) != len(told) or len(actions) != len(choices):
        return []
    return [
        Step(
            observation=seen,
            actions=tuple(actions),
            log_probability=sum(known),
            version=version,
            potential=potential,
        )
    ]


def _states(events: Sequence[Event]) -> list[SystemState]:
    return [each.state for each in recorded(events)]


def decider(boundaries: Sequence[Boundary]) -> str:
    """The policy that decided first with a version, or else first of all; empty where none did.

    The risk engine, which may have decided at any boundary, has no version.
    """
    decisions = [each for boundary in boundaries for each in boundary.decisions]
    own = [each.policy for each in decisions if each.policy_version is not None]
    return next(iter([*own, *(each.policy for each in decisions)]), "")


def _summary(run: Path) -> RunSummary | None:
    path = run / SUMMARY_NAME
    if not path.is_file():
        return None
    found: RunSummary = decode(path.read_bytes(), RunSummary, what=str(path))
    return found
