"""The gate: what is run, what is written, and that one objection refuses."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from judging import (
    BEHAVES,
    QUICK,
    SEEDS,
    TASKS,
    WORTH,
    Written,
    gate,
    measured,
    stored,
    summary,
    verdict,
)

from esper_lightning.leyline import DecodeError, InvalidArgument, encode
from esper_lightning.simic.rollouts import Assignment, Pair
from esper_lightning.simic.validation import (
    RIVALS,
    Gate,
    Judged,
    Rule,
    Trial,
    UtilitiesOfRuns,
    Verdict,
)
from esper_lightning.simic.validation import gate as gates
from esper_lightning.simic.validation.checks import Check, Timing

CANDIDATE, CURRENT = stored(1, version=2), stored(0)


@pytest.fixture
def behaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks of conduct take seconds, and have tests of their own."""
    told = BEHAVES, Timing(p50_ms=1.0, p95_ms=2.0, num=10)
    monkeypatch.setattr(gates, "check_policy", lambda *_, **__: told)


def test_one_that_behaves_and_is_better_passes_with_all_its_evidence() -> None:
    utilities = Written(measured())
    told = gate(utilities)(CANDIDATE, CURRENT)
    assert told.passed
    assert [check.name for check in told.checks][-1] == "round trip"
    assert told.candidate == Judged.of(CANDIDATE)
    assert (told.candidate.name, told.candidate.version) == ("learned", 2)
    assert told.current.weights != told.candidate.weights
    assert told.measured == measured()
    assert told.tasks == {task.name: task.options for task in TASKS}
    assert [each.other for each in told.differences] == ["current", *RIVALS]
    assert told.reasons[0].startswith("candidate less current: +0.")
    assert "esper_lightning" in told.versions
    assert Verdict.from_bytes(told.to_bytes()) == told


def test_all_decide_on_the_same_tasks_and_seeds(behaves: None) -> None:
    utilities = Written(measured())
    gate(utilities)(CANDIDATE, CURRENT)
    asked: dict[str, list[tuple[str, int]]] = {}
    for trial in utilities.trials:
        asked.setdefault(trial.who, []).append((trial.task.name, trial.seed))
    assert set(asked) == {"candidate", "current", *RIVALS}
    grid = [(task.name, seed) for task in TASKS for seed in SEEDS]
    assert all(each == grid for each in asked.values())
    deciding = {trial.who: trial.deciding for trial in utilities.trials}
    assert deciding["candidate"] is CANDIDATE
    assert deciding["current"] is CURRENT
    assert deciding["never"] == ("tamiyo=never",)


def test_one_that_is_worse_is_refused_in_words(behaves: None) -> None:
    told = gate(Written(measured(WORTH | {"candidate": 0.1})))(CANDIDATE, CURRENT)
    assert not told.passed
    assert told.reasons[0].startswith("it is not better than current on average: candidate less")
    assert len(told.differences) == 5


def test_a_run_that_failed_is_a_reason(behaves: None) -> None:
    first, *rest = measured()
    broken = msgspec.structs.replace(first, utilities=first.utilities | {"candidate": None})
    told = gate(Written([broken, *rest]))(CANDIDATE, CURRENT)
    assert not told.passed
    assert told.reasons == (
        "1 of 32 utilities of candidate are missing or not finite, the first on task 0 with seed 0",
    )
    assert told.differences == ()
    assert Verdict.from_bytes(told.to_bytes()) == told


def test_of_one_that_misbehaves_nothing_is_run() -> None:
    bad = stored(1)
    for parameter in bad.network.parameters():
        parameter.mul_(1e30)
    utilities = Written(measured())
    told = gate(utilities)(bad, CURRENT)
    assert not told.passed
    assert told.reasons[0].startswith("legality failed")
    assert (utilities.trials, told.measured) == ([], ())


def test_what_there_is_nothing_to_judge_of() -> None:
    with pytest.raises(InvalidArgument, match="has the weights of"):
        gate(Written([]))(stored(0, version=5), CURRENT)
    with pytest.raises(InvalidArgument, match="'other' does not replace 'learned'"):
        gate(Written([]))(stored(1, name="other"), CURRENT)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"tasks": TASKS[:7]}, "8 tasks with 3 seeds"),
        ({"seeds": [1, 2]}, "8 tasks with 3 seeds"),
        ({"tasks": [*TASKS, TASKS[0]]}, "no task and no seed stands twice"),
        ({"seeds": [1, 2, 2]}, "no task and no seed stands twice"),
        ({"rivals": {"never": ("tamiyo=never",)}}, "better_than are among them"),
        ({"rivals": {**RIVALS, "current": ()}}, "names of their own"),
        ({"num_states": 1}, "num_states"),
    ],
)
def test_gates_that_are_none(options: dict[str, object], why: str) -> None:
    settings = {"utilities": Written([]), "tasks": TASKS, "seeds": SEEDS, "rule": QUICK}
    with pytest.raises(InvalidArgument, match=why):
        Gate(**{**settings, **options})  # type: ignore[arg-type]


def test_a_verdict_that_was_changed_to_passed_is_not_read() -> None:
    told = verdict(CANDIDATE, CURRENT, found=measured(WORTH | {"candidate": 0.1}))
    assert not told.passed
    assert Verdict.from_bytes(told.to_bytes()) == told
    with pytest.raises(DecodeError, match="which its own evidence does not"):
        Verdict.from_bytes(msgspec.structs.replace(told, passed=True).to_bytes())
    unchecked = msgspec.structs.replace(verdict(CANDIDATE, CURRENT), checks=())
    with pytest.raises(DecodeError, match="which its own evidence does not"):
        Verdict.from_bytes(unchecked.to_bytes())
    failed = msgspec.structs.replace(
        verdict(CANDIDATE, CURRENT), checks=(Check(name="legality", num=5, failures=1),)
    )
    with pytest.raises(DecodeError, match="which its own evidence does not"):
        Verdict.from_bytes(failed.to_bytes())


def test_a_verdict_of_another_release_is_refused_and_damage_named() -> None:
    told = verdict(CANDIDATE, CURRENT)
    with pytest.raises(DecodeError, match="has format 2; this release reads 1"):
        Verdict.from_bytes(msgspec.structs.replace(told, format=2).to_bytes())
    with pytest.raises(DecodeError, match="verdict.json is not"):
        Verdict.from_bytes(told.to_bytes()[:-10], what="verdict.json")


def test_which_policy_it_is_hangs_on_weights_and_file() -> None:
    one, other = Judged.of(stored(1, version=2)), Judged.of(stored(1, version=3))
    assert one.weights == other.weights
    assert one.digest != other.digest


def test_utilities_of_runs_are_beside_their_twins(tmp_path: Path) -> None:
    asked: list[Assignment] = []

    def carry_out(assignments: Sequence[Assignment]) -> list[Pair | None]:
        asked.extend(assignments)
        found: list[Pair | None] = []
        for number, each in enumerate(assignments):
            folders = [tmp_path / f"{number}{part}" for part in ("run", "twin")]
            losses = 0.5 if "tamiyo=learned" in each.deciding else 1.0, 1.0
            for folder, loss in zip(folders, losses, strict=True):
                folder.mkdir()
                (folder / "summary.json").write_bytes(encode(summary(loss)))
            found.append(Pair(run=folders[0], twin=folders[1]))
        (tmp_path / "3run" / "summary.json").write_text("{")
        return [*found[:-1], None]

    trials = [
        Trial(who=who, deciding=deciding, task=TASKS[0], seed=7)
        for who, deciding in [
            ("candidate", CANDIDATE),
            ("never", RIVALS["never"]),
            ("current", CURRENT),
            ("random", RIVALS["random"]),
            ("periodic", RIVALS["periodic"]),
        ]
    ]
    told = UtilitiesOfRuns(carry_out=carry_out, folder=tmp_path / "policies")(trials)
    assert told[:3] == [pytest.approx(0.6931, abs=1e-4), 0.0, told[0]]
    assert told[3:] == [None, None]
    assert all(each.seed == 7 for each in asked)
    assert "tamiyo.policy.sample=true" not in asked[0].deciding
    files = sorted((tmp_path / "policies").iterdir())
    assert sorted(path.read_bytes() for path in files) == sorted(
        each.to_bytes() for each in (CANDIDATE, CURRENT)
    )


def test_the_rule_of_a_gate_is_the_usual_one() -> None:
    assert Rule().margin == 0
    assert Rule().better_than == ("random", "never")
