"""Recipes of small branches, of this package and of files that a test writes."""

import importlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esper_lightning import karn
from esper_lightning.karn import Blueprint, Tier
from esper_lightning.karn.blueprint import FEATURES
from esper_lightning.leyline import FeatureKind, FeatureMap, SlotShape
from esper_lightning.tezzeret import Recipe, is_supported, key, recipe_for, this_machine
from esper_lightning.tezzeret.journal import Journal
from esper_lightning.urza import Library

IN, OUT, ROWS = 6, 5, 4
VECTOR = SlotShape(
    input=FeatureMap(kind=FeatureKind.VECTOR, sizes=(IN,)),
    output=FeatureMap(kind=FeatureKind.VECTOR, sizes=(OUT,)),
)
MAPS = SlotShape(
    input=FeatureMap(kind=FeatureKind.SPATIAL, sizes=(3, 8, 8)),
    output=FeatureMap(kind=FeatureKind.SPATIAL, sizes=(4, 8, 8)),
)

compiles = pytest.mark.skipif(
    not is_supported() or shutil.which(os.environ.get("CXX", "g++")) is None,
    reason="compiling ahead needs torch 2.10 or later and a C++ compiler",
)

SOURCE = """
import torch
from torch import nn
from esper_lightning.karn import Cost, CountableBranch
from esper_lightning.leyline import Attachment


class Own(CountableBranch):
    attachment = Attachment.SERIES

    def __init__(self, shape):
        super().__init__()
        {init}
        self.linear = nn.Linear(shape.output.features, shape.output.features)

    def forward(self, x):
        {forward}

    @classmethod
    def cost(cls, shape, /):
        return Cost(parameters=0, flops=0)
"""


def mlp(**changes: Any) -> Recipe:
    """Of a ``parallel_mlp``."""
    asked: dict[str, Any] = {"batch": ROWS, "parameters": {"expansion": 2.0}, "shape": VECTOR}
    asked |= changes
    blueprint, shape = karn.get(asked.pop("blueprint", "parallel_mlp")), asked.pop("shape")
    return recipe_for(blueprint, shape, asked.pop("parameters"), **asked)


MANY = [mlp(batch=number) for number in range(1, 9)]


def row(branch: type[karn.CountableBranch], name: str = "own") -> Blueprint:
    """A row of the catalogue."""
    return Blueprint(
        id="MY001",
        name=name,
        branch=branch,
        kinds=FEATURES,
        tier=Tier.EXPERIMENTAL,
        risk=0.5,
        curriculum_stage=1,
        approval="2026-11 v1",
        citation="these tests",
    )


def own(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    module: str = "my_branches",
    init: str = "pass",
    forward: str = "return self.linear(x)",
    more: str = "",
) -> Recipe:
    """Of a branch in a file of the folder, imported anew."""
    (folder / f"{module}.py").write_text(more + SOURCE.format(init=init, forward=forward))
    if str(folder) not in sys.path:
        monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, module, raising=False)
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    importlib.invalidate_caches()
    branch = importlib.import_module(module).Own
    return recipe_for(row(branch), VECTOR, batch=ROWS)


def name_of(asked: Recipe) -> str:
    """The key on this machine."""
    return key(asked, this_machine(asked.device))


def journal(library: Library) -> Journal:
    """What was tried."""
    return Journal(library.root / "tezzeret" / "journal.jsonl")


def events(library: Library) -> list[str]:
    """In the order of happening."""
    return [line.event for line in journal(library).lines()]


def alive(group: int) -> list[str]:
    """Processes of a group that still run, by what the system says of them."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            told = stat.read_text()
        except OSError:
            continue
        state, _, pgrp = told.rpartition(")")[2].split()[:3]
        if int(pgrp) == group and state not in "ZX":
            found.append(told)
    return found


def wait_until(true: Callable[[], bool], *, seconds: float = 30.0) -> None:
    """Wait for what other threads and processes do."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"it did not happen within {seconds} s"
        time.sleep(0.02)
