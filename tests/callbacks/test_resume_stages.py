"""From a checkpoint taken in any stage, within an epoch or at its end, the same run goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from interrupted_runs import (
    EPOCHS,
    OPTIMIZERS,
    Finished,
    build,
    differences,
    network,
    run,
    situations,
)
from runs import same

from esper_lightning.kasmina import restore
from esper_lightning.leyline import Incubation, SeedStage, SystemState

pytestmark = pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")

Straight = Callable[[Incubation, str], tuple[Finished, Path]]

ALWAYS = {
    *("DORMANT", "GERMINATED", "PROBATIONARY", "FOSSILIZED", "TERMINATED", "CULLED"),
    *("EMBARGOED", "RESETTING", "paused", "window pending", "alpha moving in CULLED"),
}
APART = {*ALWAYS, "TRAINING", "BLENDING", "SHADOWING", "alpha moving in BLENDING"}

CASES = [
    (incubation, optimizer, epoch)
    for incubation in Incubation
    for optimizer in OPTIMIZERS
    for epoch in range(EPOCHS[incubation] - 1)
]
WITHIN = [
    (incubation, optimizer, epoch)
    for incubation in Incubation
    for optimizer in OPTIMIZERS
    for epoch in range(EPOCHS[incubation])
]
TITLES = {"sgd": "SGD", "adamw": "AdamW"}
"""As docs/resume.md calls them."""


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Straight:
    """The uninterrupted run, once for each case, and the folder of its checkpoints."""
    known: dict[tuple[Incubation, str], tuple[Finished, Path]] = {}

    def of(incubation: Incubation, optimizer: str) -> tuple[Finished, Path]:
        key = (incubation, optimizer)
        if key not in known:
            folder = tmp_path_factory.mktemp(f"{incubation.value}-{optimizer}")
            known[key] = run(incubation, optimizer, save_in=folder), folder
        return known[key]

    return of


@pytest.mark.parametrize("incubation", Incubation)
@pytest.mark.parametrize(("moment", "cases"), [("end", CASES), ("within", WITHIN)])
def test_the_checkpoints_are_of_every_stage(
    straight: Straight, incubation: Incubation, moment: str, cases: list[Any]
) -> None:
    found = {
        situation
        for kind, optimizer, epoch in cases
        if kind is incubation
        for situation in situations(straight(kind, optimizer)[1] / f"{epoch}-{moment}.ckpt")
    }
    assert found >= (ALWAYS if incubation is Incubation.DIRECT else APART)


@pytest.mark.parametrize(("incubation", "optimizer", "epoch"), CASES)
def test_a_run_resumed_at_the_end_of_an_epoch_is_the_same_run(
    straight: Straight, incubation: Incubation, optimizer: str, epoch: int
) -> None:
    whole, folder = straight(incubation, optimizer)
    rest = run(incubation, optimizer, ckpt_path=folder / f"{epoch}-end.ckpt")
    assert differences(whole, rest) == []
    assert rest.states == whole.states[epoch + 1 :]


@pytest.mark.parametrize(("incubation", "optimizer", "epoch"), WITHIN)
def test_a_run_resumed_within_an_epoch_is_the_same_run(
    straight: Straight, incubation: Incubation, optimizer: str, epoch: int
) -> None:
    whole, folder = straight(incubation, optimizer)
    rest = run(incubation, optimizer, ckpt_path=folder / f"{epoch}-within.ckpt")
    assert differences(whole, rest) == []
    # Lightning's means over the training epoch begin anew; all else is the same.
    assert _untold(rest.states[0]) == _untold(whole.states[epoch])
    assert rest.states[1:] == whole.states[epoch + 1 :]


@pytest.mark.parametrize("incubation", Incubation)
def test_a_network_is_restored_from_every_stage(straight: Straight, incubation: Incubation) -> None:
    for path in straight(incubation, "sgd")[1].glob("*.ckpt"):
        saved = torch.load(path, weights_only=True)
        module = restore(network(), saved, build=build)
        assert same(module.state_dict(), saved["state_dict"])
        assert module.eval()(torch.ones(2, 5)).isfinite().all()


def test_the_page_says_in_what_stages_with_what_optimisers(straight: Straight) -> None:
    page = (Path(__file__).parents[2] / "docs/resume.md").read_text()
    lines = _table(straight)
    assert "\n".join(lines) in page, "docs/resume.md is to hold:\n" + "\n".join(lines)


def _table(straight: Straight) -> list[str]:
    """Situations by incubation; in a cell the optimisers, of both moments where not said."""
    found: dict[str, dict[Incubation, dict[str, set[str]]]] = {}
    for moment, cases in (("end", CASES), ("within", WITHIN)):
        for kind, optimizer, epoch in cases:
            for each in situations(straight(kind, optimizer)[1] / f"{epoch}-{moment}.ckpt"):
                cell = found.setdefault(each, {}).setdefault(kind, {})
                cell.setdefault(optimizer, set()).add(moment)
    stages = [stage.name for stage in SeedStage if stage.name in found]
    rows = [
        [
            row,
            *(_cell(found[row].get(kind, {})) for kind in Incubation),
        ]
        for row in [*stages, *sorted(found.keys() - set(stages))]
    ]
    head = ["a slot is in", *(kind.value.replace("_", "-") for kind in Incubation)]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _cell(tested: dict[str, set[str]]) -> str:
    told = []
    for optimizer, title in TITLES.items():
        moments = tested.get(optimizer, set())
        if moments:
            told.append(title if len(moments) == 2 else f"{title} ({', '.join(moments)})")
    return ", ".join(told) or "-"


def _untold(state: SystemState) -> SystemState:
    metrics = {k: v for k, v in state.metrics.items() if not k.startswith("train")}
    return msgspec.structs.replace(state, metrics=metrics)
