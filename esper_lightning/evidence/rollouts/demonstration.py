"""Does a policy get better from experience? The whole loop, step by step, by the commands of users.

A policy is trained from several seeds (``train.py experiment=simic``). That of the first seed is
validated on tasks of their own; if it passes it is published, and a run that is under way takes it
up. All of them are then judged on held-out tasks beside who else decides
(:mod:`~esper_lightning.evidence.rollouts.contest`). What is there already is not done again.
"""

import csv
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from esper_lightning.leyline import EsperError, PolicyChanged, PolicyStep
from esper_lightning.nissa import read_journal
from esper_lightning.nissa.journal import JOURNAL_NAME
from esper_lightning.simic.recording import SUMMARY_NAME
from esper_lightning.simic.validation import Verdict
from esper_lightning.tamiyo.learned.stored import CLONED, StoredPolicy
from esper_lightning.tamiyo.reload import publish_policy
from esper_lightning.urza import Library

POLICY_NAME = "policy.safetensors"

GATE_TASK = "esper_lightning.evidence.rollouts:gate_task"
"""Function that tells what the gate judges by."""

WAIT_S, LOOK_S = 300.0, 0.5
"""How long a run may take to begin, and between two looks."""

CURVES = ("return", "entropy", "explained_variance", "kl", "clip_fraction")
"""Of a round, as Simic logs them."""


class StepFailed(EsperError):
    """A step of the demonstration ended with an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is run.

    Attributes:
        rounds: of training.
        runs: a round.
        per_task: of them, on the same task and seed.
        gate_tasks: that the gate judges by; 0 publishes nothing.
        gate_seeds: of each.
        epochs: of the run that takes up what is published.
    """

    rounds: int
    runs: int
    per_task: int
    gate_tasks: int
    gate_seeds: int
    epochs: int


FULL = Size(rounds=10, runs=64, per_task=8, gate_tasks=8, gate_seeds=4, epochs=60)
QUICK = Size(rounds=1, runs=8, per_task=4, gate_tasks=0, gate_seeds=0, epochs=0)


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What a round of training tells.

    Attributes:
        seed: of the training.
        number: of the round, 0-based.
        values: of :data:`CURVES`, those that are there; ``return`` is the mean utility of its runs.
    """

    seed: int
    number: int
    values: dict[str, float]


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the first seed's policy.

    Attributes:
        passed: the gate.
        version: that it was published as; None where it was not.
        taken_up: epoch in which a run that was under way took it up; None where none did.
    """

    passed: bool
    version: int | None = None
    taken_up: int | None = None


class Demonstration:
    """The steps.

    Args:
        folder: of all that it makes.
        train: path of ``train.py``.
        jobs: runs at a time.
        size: how much is run.
    """

    def __init__(self, *, folder: Path, train: Path, jobs: int, size: Size) -> None:
        self._folder = folder.resolve()
        self._train = train.resolve()
        self._jobs = jobs
        self._size = size

    def train(self, seed: int) -> Path:
        """Train from a seed; the policy's file."""
        place = self._folder / f"seed_{seed}"
        policy = place / POLICY_NAME
        if not policy.exists():
            size = self._size
            self._run(
                str(self._train),
                "experiment=simic",
                f"seed={seed}",
                f"trainer.max_epochs={size.rounds}",
                f"datamodule.rollouts.num={size.runs}",
                f"datamodule.rollouts.per_task={size.per_task}",
                f"datamodule.rollouts.jobs={self._jobs}",
                f"datamodule.rollouts.train='{self._train}'",
                "print_config=false",
                f"hydra.run.dir='{place}'",
            )
        return policy

    def curves(self, seed: int) -> list[Round]:
        """How its training went."""
        (path,) = (self._folder / f"seed_{seed}").glob("csv/**/metrics.csv")
        return read_rounds(path, seed)

    def publish(self, policy: Path) -> Published:
        """Validate a policy beside the clone; if it passes, publish it to a run under way."""
        verdict = self._folder / "verdict.json"
        if not verdict.exists():
            self._run(
                *("-m", "esper_lightning.simic", "validate", str(policy)),
                *("--current", str(CLONED), "--task", GATE_TASK),
                *("--tasks", str(self._size.gate_tasks), "--seeds", str(self._size.gate_seeds)),
                *("--jobs", str(self._jobs), "--train", str(self._train)),
                *("--runs", str(self._folder / "validation"), "--out", str(verdict)),
                allowed=(0, 1),
            )
        if not Verdict.from_bytes(verdict.read_bytes(), what=str(verdict)).passed:
            return Published(passed=False)
        place = self._folder / "running"
        if not (place / SUMMARY_NAME).exists():
            self._publish_to(place, policy, verdict)
        for event in read_journal(place / JOURNAL_NAME):
            if isinstance(event, PolicyChanged) and event.step is PolicyStep.INSTALLED:
                return Published(passed=True, version=event.offered, taken_up=event.epoch)
        return Published(passed=True)

    def _publish_to(self, place: Path, policy: Path, verdict: Path) -> None:
        """Start a run in which the clone decides, publish meanwhile, and let the run end."""
        library = self._folder / "library"
        for each in (place, library):  # what an interrupted run left behind
            shutil.rmtree(each, ignore_errors=True)
        first = _put_clone(library)
        running = subprocess.Popen(
            [
                *(sys.executable, str(self._train), "tamiyo=learned"),
                *(f"tamiyo.policy.policy={first}", f"tamiyo.policy.library='{library}'"),
                "tamiyo.policy.updates=true",
                *("oona.url=embedded://", f"trainer.max_epochs={self._size.epochs}"),
                *("print_config=false", "test=false", f"hydra.run.dir='{place}'"),
            ],
            stdout=subprocess.DEVNULL,
        )
        try:
            _wait_for(place / JOURNAL_NAME, running)
            self._run(
                *("-m", "esper_lightning.simic", "publish", str(policy)),
                *("--verdict", str(verdict), "--library", str(library)),
                *("--url", "embedded://", "--folder", str(place)),
            )
            if running.wait():
                raise StepFailed(f"the run in {place} ended with {running.returncode}")
        finally:
            running.kill()
            running.wait()

    def _run(self, *arguments: str, allowed: Sequence[int] = (0,)) -> int:
        print("$ python", *arguments, flush=True)
        code = subprocess.run([sys.executable, *arguments], check=False).returncode
        if code not in allowed:
            raise StepFailed(f"python {' '.join(arguments)} ended with {code}")
        return code


def read_rounds(path: Path, seed: int) -> list[Round]:
    """From the file that the CSV logger writes."""
    found: dict[int, dict[str, float]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            values = found.setdefault(int(row["epoch"]), {})
            for name in CURVES:
                told = row.get(f"simic/train/{name}")
                if told:
                    values[name] = float(told)
    told = sorted(number for number, values in found.items() if values)
    return [Round(seed=seed, number=number, values=found[number]) for number in told]


def _put_clone(root: Path) -> str:
    """Have the clone as the current policy of a library; how runs name it."""
    card = StoredPolicy.load(CLONED).card
    with Library(root) as library:
        update = publish_policy(
            library,
            lambda _: None,  # nobody runs it yet
            CLONED.read_bytes(),
            name=card.name,
            version=card.version,
            reason="what training began with",
        )
    return update.reference


def _wait_for(journal: Path, running: "subprocess.Popen[bytes]") -> None:
    """Until a run is well under way."""
    until = time.monotonic() + WAIT_S
    while not (journal.exists() and b'"epoch":2' in journal.read_bytes()):
        if running.poll() is not None or time.monotonic() > until:
            raise StepFailed(f"the run that should tell of itself in {journal} did not begin")
        time.sleep(LOOK_S)
