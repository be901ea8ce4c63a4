"""From the commands over the bus into a run: what is published decides, what is withdrawn goes."""

import argparse
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from bus_helpers import Bus, bus_at
from judging import WORTH, measured, stored, summary, verdict
from servers import started

from esper_lightning.leyline import (
    BusUnavailable,
    EsperError,
    InvalidArgument,
    Signer,
    SystemState,
    encode,
)
from esper_lightning.oona import Role
from esper_lightning.simic.rollouts import Assignment, Pair, RolloutTask
from esper_lightning.simic.validation import Verdict, command
from esper_lightning.simic.validation.hostile_states import boundaries
from esper_lightning.tamiyo.learned import Learned, StoredPolicy
from esper_lightning.tamiyo.reload import BusPolicies, Reloading, from_library
from esper_lightning.urza import Library

KEY = b"the key of these tests"
STREAM = "policies-of-these-tests"
PACKAGE = StoredPolicy.load()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("REDIS_URL", "ESPER_LEYLINE_PREVIOUS_SECRET"):
        monkeypatch.delenv(name, raising=False)
    for role in Role:
        monkeypatch.setenv(f"OONA_{role.name}_STREAM", f"{STREAM}.{role.value}")
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", KEY.decode())
    monkeypatch.setenv("ESPER_URZA_ROOT", str(tmp_path / "library"))


@pytest.fixture(params=["embedded", "memory"])
def bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    with (
        started(request.param) as running,
        bus_at(running.url, Signer(KEY), prefix=STREAM) as opened,
    ):
        yield opened


def do(*arguments: str) -> int:
    """As the command line does it."""
    parser = argparse.ArgumentParser()
    command.add_parsers(parser.add_subparsers(required=True))
    asked = parser.parse_args(arguments)
    code: int = asked.do(asked)
    return code


def kept(path: Path, policy: StoredPolicy) -> Path:
    path.write_bytes(policy.to_bytes())
    return path


def listening(bus: Bus, library: Library) -> Reloading:
    """What ``tamiyo.policy.updates=true`` makes."""
    return Reloading(
        Learned(policy=PACKAGE),
        source=BusPolicies(url=bus.url),
        load=from_library(library, Learned.from_bytes),
        version=PACKAGE.card.version,
    )


def decided(policy: Reloading, state: SystemState) -> int | None:
    """By which version."""
    (version,) = {choice.policy_version for choice in policy.decide(state)}
    return version


def test_a_run_takes_up_what_is_published_and_what_comes_back(
    bus: Bus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    states = list(boundaries(8, seed=1))
    newer = kept(tmp_path / "newer", stored(1))
    told = tmp_path / "verdict.json"
    told.write_bytes(verdict(stored(1), PACKAGE).to_bytes())
    here = ("--url", bus.url)
    with Library(tmp_path / "library") as library:
        policy = listening(bus, library)
        first = PACKAGE.card.version
        assert decided(policy, states[0]) == first
        assert do("publish", str(newer), "--verdict", str(told), *here, "--reason", "mine") == 0
        assert [decided(policy, state) for state in states[1:3]] == [first + 1] * 2
        assert do("withdraw", "learned@1", "--reason", "it diverges", *here) == 0
        assert [decided(policy, state) for state in states[3:5]] == [first + 2] * 2
        changes = policy.changes()
        assert [each.offered for each in changes] == [first + 1, first + 2]
        assert changes[0].reason == "mine"
        assert changes[1].reason.endswith("learned@1, which was withdrawn: it diverges")
        # Who begins later takes the one that came back at once.
        later = listening(bus, library)
        assert decided(later, states[0]) == first + 2
        for each in (policy, later):
            each.close()
    assert f"learned@2, version {first + 2}, is in its place" in caplog.text


def test_a_policy_that_did_not_pass_ends_with_1_and_nobody_hears_of_it(
    bus: Bus, tmp_path: Path
) -> None:
    path = kept(tmp_path / "worse", stored(1))
    told = tmp_path / "verdict.json"
    told.write_bytes(
        verdict(stored(1), PACKAGE, found=measured(WORTH | {"candidate": 0.0})).to_bytes()
    )
    assert do("publish", str(path), "--verdict", str(told), "--url", bus.url) == 1
    assert bus.length(Role.POLICY) == 0


def test_without_a_bus_it_is_only_stored_if_that_is_asked_for(tmp_path: Path) -> None:
    path = kept(tmp_path / "newer", stored(1))
    told = tmp_path / "verdict.json"
    told.write_bytes(verdict(stored(1), PACKAGE).to_bytes())
    with pytest.raises(BusUnavailable):
        do("publish", str(path), "--verdict", str(told), "--url", f"unix://{tmp_path}/nothing")
    with Library(tmp_path / "library") as library:
        assert library.find() == []
        assert do("publish", str(path), "--verdict", str(told), "--url", "none") == 0
        assert len(library.find("policy")) == 1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("publish", "nowhere"), "there is no policy nowhere"),
        (("withdraw", "learned", "--reason", "bad"), "a reference is such as learned@3"),
        (("withdraw", "learned@1", "--reason", "bad", "--url", "none"), "no policy learned@1"),
        (("validate", "nowhere"), "there is no policy nowhere"),
    ],
)
def test_what_cannot_be_used_is_an_error(arguments: Sequence[str], why: str) -> None:
    with pytest.raises(EsperError, match=why):
        do(*arguments)


def test_without_a_verdict_nothing_is_published(tmp_path: Path) -> None:
    path = str(kept(tmp_path / "newer", stored(1)))
    with pytest.raises(InvalidArgument, match="`validate` writes one"):
        do("publish", path, "--verdict", str(tmp_path / "nothing"), "--url", "none")


class NotRun:
    """Carries nothing out: a run's loss is told by who decides, its seed and its task."""

    def __init__(self, *, folder: Path, train: Path, jobs: int) -> None:
        self._folder = folder

    def __call__(self, assignments: Sequence[Assignment]) -> list[Pair | None]:
        return [self._pair(each) for each in assignments]

    def _pair(self, each: Assignment) -> Pair:
        told = " ".join(each.deciding)
        loss = 0.9
        if "learned" in told:
            card = StoredPolicy.load(told.split("'")[1]).card
            loss = float(card.provenance.get("loss", 0.8))
        elif "never" in told:
            loss = 1.0
        loss += 0.01 * (each.seed % 3) * ("never" not in told)
        place = (
            self._folder
            / each.task.name
            / str(each.seed)
            / hashlib.sha256(told.encode()).hexdigest()
        )
        for part, value in (("run", loss), ("twin", 1.0)):
            (place / part).mkdir(parents=True, exist_ok=True)
            (place / part / "summary.json").write_bytes(encode(summary(value)))
        return Pair(run=place / "run", twin=place / "twin")


def task(number: int) -> RolloutTask:
    """Two numbers have the same one."""
    return RolloutTask(name=f"task{number // 2}", options=(f"n={number // 2}",))


def with_loss(loss: float, weights: int) -> StoredPolicy:
    made = stored(weights)
    return StoredPolicy.of(made.network, name="learned", version=2, provenance={"loss": loss})


@pytest.mark.parametrize(("loss", "code"), [(0.5, 0), (0.95, 1)])
def test_validate_writes_a_verdict_and_says_it_by_its_code(
    loss: float, code: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = kept(tmp_path / "candidate", with_loss(loss, 1))
    out = tmp_path / "verdicts" / "verdict.json"
    asked: list[str] = ["validate", str(path), "--out", str(out), "--tasks", "8", "--seeds", "3"]
    asked += ["--carry-out", f"{__name__}:NotRun", "--task", f"{__name__}:task"]
    asked += ["--runs", str(tmp_path / "runs")]
    assert do(*asked) == code
    told = Verdict.from_bytes(out.read_bytes())
    assert told.passed == (code == 0)
    assert len(told.tasks) == 8
    assert [each.seed for each in told.measured[:3]] == [200_000, 200_001, 200_002]
    assert told.current.weights == verdict(stored(1), PACKAGE).current.weights
    assert f"the verdict is in {out}" in caplog.text
    assert ("passed:" if code == 0 else "did not pass:") in caplog.text
    if code == 0:
        assert do("publish", str(path), "--verdict", str(out), "--url", "none") == 0


def test_what_carries_out_runs_is_named(tmp_path: Path) -> None:
    path = str(kept(tmp_path / "candidate", stored(1)))
    for name, why in [("nowhere:Runs", "cannot be found"), ("math:pi", "cannot be called")]:
        with pytest.raises(InvalidArgument, match=why):
            do("validate", path, "--carry-out", name)


def test_the_names_by_default_are_there() -> None:
    """Simic does not import what stands above it; a name that moved would only be noticed here."""
    parser = argparse.ArgumentParser()
    command.add_parsers(parser.add_subparsers())
    asked = parser.parse_args(["validate", "policy"])
    for name in (asked.carry_out, asked.task):
        found: Callable[..., object] = command._named(name)
        assert callable(found)
    assert isinstance(command._named(asked.task)(0), RolloutTask)
