"""What dormant slots cost in instructions, which are the same however busy the machine is.

The arms of ``overhead``, each in a process of its own under valgrind, which counts the instructions
of the steps between two of them. Where hundreds of turns leave an interval of percents, two runs of
this agree to some thousandths. It needs valgrind, and takes minutes.
"""

import argparse
import gc
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from esper_lightning.callbacks import Kasmina
from esper_lightning.evidence import overhead
from esper_lightning.evidence.report import table, write
from esper_lightning.evidence.side_by_side import Classifier, Length

WARM_UP, COUNTED = 16, 64
"""Steps before counting begins (the first see shapes and FLOPs), and those that are counted."""

ARMS = (overhead.BARE, overhead.SLOTS, overhead.LORA)


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """One arm.

    Attributes:
        host: what was trained.
        arm: what it had beside it.
        millions: of instructions, in a training step.
        ratio: of this arm's over the bare one's.
    """

    host: str
    arm: str
    millions: float
    ratio: float


class _Counting(Callback):
    """Observes only: has valgrind count between two steps."""

    def on_train_batch_start(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        if batch_idx not in (WARM_UP, WARM_UP + COUNTED):
            return
        gc.collect()
        gc.disable()
        switch = "on" if batch_idx == WARM_UP else "off"
        subprocess.run(
            ["callgrind_control", "-i", switch, str(os.getpid())],
            check=True,
            stdout=subprocess.DEVNULL,
        )


def train(host: str, arm: str) -> None:
    """One arm, in the process that valgrind watches; ``host`` is pixels, or ``digits``."""
    digits = host == "digits"
    make, paths = (
        (overhead.digits_host, overhead.DIGITS)
        if digits
        else (overhead.convolutions, overhead.CONVOLUTIONS)
    )
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size = 64 if digits else 16
    length = Length(epochs=1, steps=WARM_UP + COUNTED + 1, block=1, batch_size=size)
    shape = (1, 8, 8) if digits else (3, int(host), int(host))
    callbacks: list[Callback] = [_Counting()]
    net = overhead.disabled_lora(make(), paths) if arm == overhead.LORA else make()
    if arm == overhead.SLOTS:
        callbacks.append(Kasmina(slots=[f"net.{path}" for path in paths], monitor="loss"))
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    data = TensorDataset(*overhead.examples(shape, length))
    trainer.fit(Classifier(net), DataLoader(data, size))


def count(host: str, arm: str) -> int:
    """Instructions of the steps that are counted."""
    valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no"]
    run = subprocess.run(
        [
            *valgrind,
            f"--callgrind-out-file={os.devnull}",
            sys.executable,
            "-m",
            "esper_lightning.evidence.instructions",
            host,
            arm,
        ],
        env={**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    found = re.search(r"Collected : (\d+)", run.stderr)
    assert found is not None, run.stderr
    return int(found[1])


def run(hosts: Sequence[str]) -> list[Cost]:
    """All arms of each host, one after the other."""
    costs = []
    for host in hosts:
        counted = {arm: count(host, arm) for arm in ARMS if (host, arm) != ("digits", ARMS[2])}
        costs += [
            Cost(
                host="digits" if host == "digits" else f"8 convolutions, {host}x{host}",
                arm=arm,
                millions=number / COUNTED / 1e6,
                ratio=number / counted[overhead.BARE],
            )
            for arm, number in counted.items()
        ]
    return costs


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.evidence instructions")
    parser.add_argument("--hosts", nargs="+", default=["8", "digits"], help="pixels, or digits")
    parser.add_argument("--out", type=Path, default=Path("outputs/evidence/instructions.json"))
    options = parser.parse_args(arguments)
    if shutil.which("callgrind_control") is None:
        parser.error("this needs valgrind, which is not installed (Debian: apt install valgrind)")
    costs = run(options.hosts)
    write(options.out, " ".join(["instructions", *arguments]), costs)
    rows = [[cost.host, cost.arm, f"{cost.millions:.2f}", f"{cost.ratio:.4f}"] for cost in costs]
    print(table(["host", "arm", "instructions of a step, millions", "ratio"], rows))


if __name__ == "__main__":
    train(*sys.argv[1:])
