"""The benchmark itself: real runs, rows that survive, an interruption, a failure."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from frontier_rows import row, summary

from esper_lightning.evidence.frontier import parts, rows
from esper_lightning.evidence.frontier.arms import (
    ARMS,
    CHEAP_SWEEP,
    FRONTIER,
    Done,
    nearest_size,
    with_needs,
)
from esper_lightning.evidence.frontier.command import main
from esper_lightning.evidence.frontier.matched import ROWS_NAME, Matched
from esper_lightning.evidence.frontier.pool import LOG_NAME, Run, run_all
from esper_lightning.evidence.frontier.tasks import NUM_SIZES, NUM_WIDER, TASKS, Task
from esper_lightning.leyline import GrownSeed, InvalidArgument

ROOT = Path(__file__).parents[2]
SLOT = {
    "digits": "features.2",
    "fashion_6k": "features.4",
    "cifar10_jpeg": "stages.1.0",
    "shakespeare": "blocks.1.mlp",
    "adult": "layers.0",
}
BRANCH = dict.fromkeys(("shakespeare", "adult"), "parallel_mlp") | dict.fromkeys(
    ("digits", "fashion_6k", "cifar10_jpeg"), "parallel_conv"
)
TRAIN = ROOT / "train.py"


def test_rows_come_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rows.jsonl"
    first = row("grown", 0, summary(test=0.9), curve=[(1.0, 0.5)])
    again = row("grown", 0, summary(test=0.8))
    other = row("host", 0, summary(test=0.7))
    for each in (first, again, other):
        rows.append(path, each)
    assert rows.read(path) == [again, other], "the latest of a run counts"
    assert rows.read(tmp_path / "none.jsonl") == []


def test_a_line_that_a_kill_cut_off_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    whole = row("grown", 0, summary(test=0.9))
    rows.append(path, whole)
    with path.open("ab") as file:
        file.write(b'{"task":"dig')
    assert rows.read(path) == [whole]
    rows.append(path, row("host", 0, summary(test=0.7)))
    assert len(rows.read(path)) == 2


def test_an_arm_comes_after_what_it_needs() -> None:
    seen: set[str] = set()
    for name, arm in ARMS.items():
        assert set(arm.needs) <= seen, name
        seen.add(name)
    assert with_needs(["widened_equal_flops"]) == ["grown", "widened_equal_flops"]


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_the_nearest_size_is_nearest(task: Task) -> None:
    least = task.parameters(task.shape)
    for parameters in (1, least, 3 * least + 7):
        shape = nearest_size(task, parameters)
        distance = abs(task.parameters(shape) - parameters)
        begin, end = task.shape[task.dimension], shape[task.dimension]
        steps = round((end - begin) / task.step) + 2
        others = [task.sized(begin + number * task.step) for number in range(steps + 1)]
        assert distance == min(abs(task.parameters(other) - parameters) for other in others)


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_every_task_names_its_static_networks(task: Task) -> None:
    assert (len(task.sizes), len(task.wider)) == (NUM_SIZES, NUM_WIDER)
    assert task.sized(task.sizes[0]) == task.shape
    assert all(task.flops(shape) > task.flops(task.shape) for shape in task.wider)


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_steps_at_equal_flops(task: Task) -> None:
    """A size that costs twice as much has half of the steps; the sizes of a cheap sweep share."""
    # Three times what the host would have cost. The last epoch held what was culled at its end,
    # so that the cost of a sample is not that of the network that is left.
    branches = [
        GrownSeed(slot=slot, blueprint=BRANCH[task.name], planted_epoch=epoch)
        for epoch, slot in ((3, SLOT[task.name]), (6, SLOT[task.name]))
    ]
    told = summary(test=0.9, flops=3.0, steps=100, epochs=10, flops_per_sample=9.0, grown=branches)
    done = Done(task=task, rows={"grown": row("grown", 0, told)})

    def steps(arm: str) -> int:
        given = dict(override.split("=", 1) for override in ARMS[arm].overrides(done))
        steps = int(given["++trainer.max_steps"])
        assert 10 * int(given["trainer.max_epochs"]) >= steps, "not ended by epochs"
        return steps

    assert steps("host_equal_flops") == 300
    host = task.flops(task.shape)
    costs = [parts.flops(task, branches[:number]) for number in (1, 2)]
    assert host < costs[0] < costs[1]
    assert steps("first_1_equal_flops") == round(300 * host / costs[0])
    assert steps("first_2_equal_flops") == steps("retrained_equal_flops")
    assert steps("retrained_equal_flops") == round(300 * host / costs[1])
    sizes = [task.flops(task.sized(size)) for size in task.sizes]
    wider = [task.flops(shape) for shape in task.wider]
    expected = [round(300 * host / each) for each in (*sizes, *wider)]
    assert [steps(arm) for arm in FRONTIER] == expected
    assert {steps(arm) for arm in CHEAP_SWEEP} == {round(300 * host / sum(sizes))}


def test_the_first_cohorts_are_those_that_were_planted_first() -> None:
    late, early, other = (
        GrownSeed(slot=slot, blueprint="parallel_mlp", planted_epoch=epoch)
        for slot, epoch in (("a", 9), ("a", 3), ("b", 3))
    )
    assert parts.first_cohorts([late, early, other], 1) == [early, other]
    assert parts.first_cohorts([late, early, other], 2) == [late, early, other]
    assert parts.first_cohorts([], 1) == []
    assert parts.flops(TASKS["digits"], []) == TASKS["digits"].flops(TASKS["digits"].shape)


def _keep(folder: Path, arm: str, task: Task) -> None:
    """A row of an arm with the overrides that it has on a task."""
    (run,) = Matched(folder=folder, arms=ARMS, commit="").missing([task], [arm], [0])
    kept = row(arm, 0, summary(test=0.9), task=task.name)
    rows.append(folder / ROWS_NAME, msgspec.structs.replace(kept, overrides=tuple(run.overrides())))


def test_budgets_are_not_mixed(tmp_path: Path) -> None:
    digits, adult = TASKS["digits"], TASKS["adult"]
    _keep(tmp_path, "grown", digits)
    matched = Matched(folder=tmp_path, arms=ARMS, commit="")
    assert len(matched.missing([digits], ["grown"], [1])) == 1
    assert len(matched.missing([adult], ["grown"], [1])) == 1
    for other in (replace(digits, epochs=7), replace(digits, growth=3.0)):
        told = f"another budget than the {other.epochs} epochs and {other.growth:g} times the host"
        with pytest.raises(InvalidArgument, match=told):
            matched.missing([other], ["grown"], [1])


def test_a_run_that_never_grows_has_a_budget_too(tmp_path: Path) -> None:
    digits = TASKS["digits"]
    _keep(tmp_path, "size_1", digits)
    matched = Matched(folder=tmp_path, arms=ARMS, commit="")
    assert len(matched.missing([digits], ["size_1", "size_2"], [0])) == 1
    with pytest.raises(InvalidArgument, match="another budget than the 7 epochs"):
        matched.missing([replace(digits, epochs=7)], ["size_2"], [0])


def test_a_folder_of_another_budget_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows.append(tmp_path / "outputs/frontier_7" / ROWS_NAME, row("grown", 0, summary(test=0.9)))
    with pytest.raises(SystemExit, match="another budget than the 7 epochs"):
        main(["--tasks", "digits", "--epochs", "7", "--train", str(TRAIN)])


def test_what_a_failed_run_leads_to(tmp_path: Path) -> None:
    """Those that need it are left out, the others go on, and the log is there."""
    finished: list[str] = []

    def run(name: str, overrides: list[str], needs: list[str]) -> Run:
        return Run(
            name=name,
            needs=needs,
            folder=tmp_path / name,
            overrides=lambda: ["trainer.max_epochs=1", "callbacks.live_table=null", *overrides],
            finish=lambda used: finished.append(name),
        )

    failures = run_all(
        [
            run("bad", ["host.width=0"], []),
            run("after bad", [], ["bad"]),
            run("good", [], []),
        ],
        train=TRAIN,
        jobs=2,
        tell=lambda line: None,
    )
    assert finished == ["good"]
    assert len(failures) == 2
    assert "width must be a whole number of at least 1, got 0" in failures[0]
    assert failures[1] == "after bad: left out, because what it needs failed"
    assert (tmp_path / "good" / "summary.json").is_file()
    log = (tmp_path / "bad" / LOG_NAME).read_text()
    assert "Traceback (most recent call last)" in log
    assert "width must be a whole number of at least 1, got 0" in log


@pytest.mark.slow
def test_quick_mode_runs_every_arm_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    arguments = ["frontier", "--quick", "--seeds", "0-1", "--directory", str(tmp_path)]
    command = [sys.executable, "-m", "esper_lightning.evidence", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    path = tmp_path / ROWS_NAME
    begun = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    )
    while not path.is_file() or len(path.read_bytes().splitlines()) < 3:
        assert begun.poll() is None
        time.sleep(0.2)
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    before = rows.read(path)

    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-3000:]
    after = rows.read(path)
    assert after[: len(before)] == before, "what was finished is not done again"
    assert {row.key for row in after} == {("digits", arm, s) for arm in ARMS for s in (0, 1)}
    assert not any(str(tmp_path) in told for row in after for told in row.overrides)
    assert all(row.commit for row in after)
    assert all(row.curve for row in after if not row.arm.startswith("short"))  # within an epoch
    report = (tmp_path / "report.md").read_text()
    for arm in ARMS.values():
        assert arm.group == "sweep" or arm.title in report
    assert "best size of a sweep" in report
    assert {file.name for file in tmp_path.glob("*.png")} == {"frontier.png", "differences.png"}

    grown = {row.seed: row.summary for row in after if row.arm == "grown"}
    for row_ in after:
        told = row_.summary
        match row_.arm:
            case "retrained":
                assert told.parameters == grown[row_.seed].parameters
            case name if name.endswith("_equal_flops"):
                assert told.training_flops == pytest.approx(
                    grown[row_.seed].training_flops, rel=0.05
                )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seeds", "5-3"], "has no seed"),
        (["--seeds", "x"], "neither 3 nor 0-9"),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--growth", "0"], "--growth must be finite and above 0, got 0.0"),
        (["--growth", "nan"], "--growth must be finite and above 0, got nan"),
        (["--train", "nowhere.py"], "nowhere.py is not there"),
        (["trainer.max_epochs=3"], "give --epochs of growing"),
        (["++tamiyo.policy.budget.max_growth=3"], "the same in all arms; give --growth"),
        (["--arms", "grown", "++trainer.max_epochs=3"], "give --epochs of growing"),
        (["--tasks", "chess"], "invalid choice: 'chess'"),
        (["--arms", "nobody"], "invalid choice: 'nobody'"),
    ],
)
def test_wrong_arguments(
    arguments: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit):
        main(arguments)
    assert told in capsys.readouterr().err
