"""Runs that nobody trained, for tests of how they are kept."""

from collections.abc import Sequence
from pathlib import Path

from esper_lightning.leyline import (
    AdaptationCommand,
    CommandKind,
    Decision,
    Event,
    Objective,
    RunEnded,
    RunStarted,
    RunSummary,
    SeedStage,
    SeedState,
    SystemState,
    pretty,
)
from esper_lightning.nissa.journal import JOURNAL_NAME, JournalWriter
from esper_lightning.simic.recording import SUMMARY_NAME, Boundary, Recording
from esper_lightning.simic.reward import Standing, standing
from esper_lightning.tamiyo.recorded import recorded


def state(run_id: str, epoch: int, *, seed: int, epochs: int, grows: bool) -> SystemState:
    """Loss falls with the epochs, faster where something grew; the first tells the seed."""
    grown = grows and epoch > 0
    return SystemState(
        run_id=run_id,
        epoch=epoch,
        max_epochs=epochs,
        global_step=10 * (epoch + 1),
        steps_per_epoch=10,
        objective=Objective(name="val/loss", value=(1 + seed / 7) / (1 + epoch) ** (1 + grown)),
        metrics={"val/loss": (1 + seed / 7) / (1 + epoch) ** (1 + grown), "train/loss": 0.5},
        slots=(
            SeedState(
                slot="a",
                stage=SeedStage.TRAINING if grown else SeedStage.DORMANT,
                blueprint="parallel_mlp" if grown else "",
                num_parameters=10 * grown,
            ),
        ),
        host_parameters=100,
        num_parameters=100 + 10 * grown,
        total_flops=1e6 * (epoch + 1),
    )


def decision(run_id: str, epoch: int, number: int, *, version: int | None) -> Decision:
    """To wait."""
    return Decision(
        run_id=run_id,
        epoch=epoch,
        policy="never" if version is None else "learned",
        command=AdaptationCommand(
            id=f"{run_id}/{epoch}/{number}", run_id=run_id, kind=CommandKind.NOOP, reason="to wait"
        ),
        log_probability=None if version is None else -0.5,
        policy_version=version,
    )


def events(
    run_id: str,
    *,
    seed: int = 0,
    epochs: int = 3,
    version: int | None = 1,
    outcome: str = "finished",
) -> list[Event]:
    """Of one run; without a version it is the host alone."""
    found: list[Event] = [
        RunStarted(
            run_id=run_id, slots=("a",), host_parameters=100, max_epochs=epochs, versions={"a": "1"}
        )
    ]
    for epoch in range(epochs):
        grows = version is not None
        found.append(state(run_id, epoch, seed=seed, epochs=epochs, grows=grows))
        found.append(decision(run_id, epoch, 0, version=version))
    return [*found, RunEnded(run_id=run_id, epoch=epochs, step=10 * epochs, outcome=outcome)]


def recording(
    run_id: str, *, seed: int = 0, epochs: int = 3, version: int = 1, ended: bool = True
) -> Recording:
    """Of such a run, all of whose epochs are there, or all but the last."""
    whole = recorded(events(run_id, seed=seed, epochs=epochs, version=version))
    told = whole if ended else whole[:-1]
    twin = alone(seed=seed, epochs=epochs)
    return Recording(
        task="synthetic",
        seed=seed,
        run_id=run_id,
        policy="learned",
        boundaries=tuple(
            Boundary(state=each.state, decisions=tuple(each.decisions)) for each in told
        ),
        twin=twin,
        end=standing(whole[-1].state) if ended else None,
        twin_end=twin[-1],
    )


def alone(*, seed: int, epochs: int) -> tuple[Standing, ...]:
    """The curve of the host alone."""
    told: Sequence[Event] = events("alone", seed=seed, epochs=epochs, version=None)
    return tuple(standing(each.state) for each in recorded(told))


def written(
    folder: Path,
    *,
    seed: int = 0,
    epochs: int = 3,
    version: int | None = 1,
    outcome: str = "finished",
) -> Path:
    """Such a run on disk, under the name of its folder; with a summary, if it came to its end."""
    told = events(folder.name, seed=seed, epochs=epochs, version=version, outcome=outcome)
    with JournalWriter(folder / JOURNAL_NAME) as journal:
        journal.write(*told)
    if outcome == "finished":
        last = next(each for each in reversed(told) if isinstance(each, SystemState))
        summary = RunSummary(
            run_id=folder.name,
            outcome=outcome,
            seed=seed,
            host="MLP",
            policy="never" if version is None else "learned",
            incubation="direct",
            epochs=epochs,
            steps=10 * epochs,
            validation={"val/loss": last.metrics["val/loss"] / 2},
            test={},
            host_parameters=100,
            parameters=last.num_parameters,
            host_flops_per_sample=None,
            flops_per_sample=None,
            host_training_flops=last.total_flops,
            training_flops=last.total_flops,
            wall_s=0.0,
            grown=(),
            culled=(),
            versions={"a": "1"},
            config_digest="0" * 64,
        )
        (folder / SUMMARY_NAME).write_bytes(pretty(summary))
    return folder
