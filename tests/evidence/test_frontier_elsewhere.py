"""The benchmark on other machines: waves, failures, and what is left of an interruption."""

from collections.abc import Sequence
from pathlib import Path

from machines import TRAIN, Given

from esper_lightning.evidence.frontier.elsewhere import WAVE, run_all_by
from esper_lightning.evidence.frontier.pool import Run


def run(folder: Path, *needs: str, finished: list[str]) -> Run:
    def finish(overrides: Sequence[str]) -> None:
        assert overrides == [f"of={folder.name}"]
        finished.append(folder.name)

    return Run(
        name=folder.name,
        needs=needs,
        folder=folder,
        overrides=lambda: [f"of={folder.name}"],
        finish=finish,
    )


def test_a_wave_is_what_is_ready_and_is_handed_out_in_shares(tmp_path: Path) -> None:
    finished: list[str] = []
    machines = Given()
    runs = [
        run(tmp_path / "a", finished=finished),
        run(tmp_path / "b", "a", finished=finished),
        run(tmp_path / "c", "b", finished=finished),
        *(run(tmp_path / str(number), finished=finished) for number in range(WAVE + 3)),
    ]
    told: list[str] = []
    assert run_all_by(machines, runs, train=TRAIN, jobs=2, tell=told.append) == []
    assert machines.num_asked == [WAVE, 5, 1]
    assert [len(share.runs) for share in machines.asked[1]] == [2, 2, 1]
    assert sorted(finished) == sorted(each.name for each in runs)
    assert finished.index("a") < finished.index("b") < finished.index("c")
    assert told[0] == f"1 of {len(runs)}: a"


def test_what_fails_leaves_out_what_needs_it_and_what_is_lost_is_asked_for_again(
    tmp_path: Path,
) -> None:
    finished: list[str] = []
    runs = [
        run(tmp_path / "bad", finished=finished),
        run(tmp_path / "after bad", "bad", finished=finished),
        run(tmp_path / "after that", "after bad", finished=finished),
        run(tmp_path / "lost", finished=finished),
        run(tmp_path / "good", finished=finished),
    ]
    machines = Given(failing=[1], losing=[1])
    failures = run_all_by(machines, runs, train=TRAIN, jobs=1, tell=lambda line: None)
    assert failures == [
        "bad: as told",
        "after bad: left out, because what it needs failed",
        "after that: left out, because what it needs failed",
    ]
    assert finished == ["lost", "good"]
    assert machines.num_asked == [3, 1]


def test_what_an_interrupted_benchmark_left_is_run_again(tmp_path: Path) -> None:
    finished: list[str] = []
    each = run(tmp_path / "a", finished=finished)
    for _ in range(2):
        machines = Given()
        assert run_all_by(machines, [each], train=TRAIN, jobs=1, tell=lambda line: None) == []
        assert machines.num_asked == [1]
