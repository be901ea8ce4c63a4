"""The demonstration: its steps by the commands of users, and what is there is not done again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from judging import verdict

from esper_lightning.evidence.rollouts.demonstration import (
    QUICK,
    Demonstration,
    Published,
    Size,
    StepFailed,
    read_rounds,
)
from esper_lightning.tamiyo.learned import StoredPolicy

ROOT = Path(__file__).parents[2]
PACKAGE = StoredPolicy.load()


def other() -> StoredPolicy:
    """A policy with weights of its own, which decides likewise."""
    network = PACKAGE.network
    for parameter in network.parameters():
        parameter.data.mul_(1.001)
    return StoredPolicy(network=network, card=PACKAGE.card)


@pytest.mark.slow
@pytest.mark.integration
def test_the_small_one_runs_from_end_to_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "esper_lightning.evidence", "learning", "--quick"]
    options = ["--folder", str(tmp_path), "--train", str(ROOT / "train.py")]
    first = subprocess.run(command + options, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr[-2000:]
    assert "half of the heuristic's regret less that of learned" in first.stdout
    told = json.loads((tmp_path / "learning.json").read_text())["figures"]
    assert told["rounds"][0]["values"]["return"] != 0
    assert {each["who"] for each in told["results"]} >= {"learned", "start", "seed 0", "heuristic"}
    assert (tmp_path / "learning.png").stat().st_size > 1000
    policy = tmp_path / "seed_0" / "policy.safetensors"
    before = policy.stat().st_mtime_ns
    again = subprocess.run(command + options, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-2000:]
    assert policy.stat().st_mtime_ns == before
    assert json.loads((tmp_path / "learning.json").read_text())["figures"] == told


@pytest.mark.slow
@pytest.mark.integration
def test_what_passed_is_taken_up_by_a_run_under_way(tmp_path: Path) -> None:
    size = Size(rounds=1, runs=8, per_task=4, gate_tasks=8, gate_seeds=3, epochs=40)
    newer = other()
    policy = tmp_path / "policy.safetensors"
    policy.write_bytes(newer.to_bytes())
    (tmp_path / "verdict.json").write_bytes(verdict(newer, StoredPolicy.load("cloned")).to_bytes())
    demonstration = Demonstration(folder=tmp_path, train=ROOT / "train.py", jobs=1, size=size)
    found = demonstration.publish(policy)
    assert found.passed
    assert found.version == PACKAGE.card.version + 1
    assert found.taken_up is not None
    assert 2 <= found.taken_up < 39
    assert demonstration.publish(policy) == found  # nothing is done again


def test_what_did_not_pass_is_not_published(tmp_path: Path) -> None:
    worse = verdict(other(), PACKAGE, found=[])
    assert not worse.passed
    (tmp_path / "verdict.json").write_bytes(worse.to_bytes())
    demonstration = Demonstration(folder=tmp_path, train=ROOT / "train.py", jobs=1, size=QUICK)
    assert demonstration.publish(tmp_path / "policy.safetensors") == Published(passed=False)
    assert not (tmp_path / "running").exists()


def test_a_step_that_fails_is_told(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("raise SystemExit(3)")
    demonstration = Demonstration(folder=tmp_path, train=script, jobs=1, size=QUICK)
    with pytest.raises(StepFailed, match="ended with 3"):
        demonstration.train(0)


def test_rounds_are_read_from_what_the_logger_writes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(
        "epoch,simic/train/return,simic/train/kl,other\n0,,,1\n0,0.5,0.01,\n1,0.75,,\n2,,,1\n"
    )
    found = read_rounds(path, 7)
    assert [(each.seed, each.number, each.values) for each in found] == [
        (7, 0, {"return": 0.5, "kl": 0.01}),
        (7, 1, {"return": 0.75}),
    ]
