"""What grew runs by other code where that is at hand, and nothing else of a run changes."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled_runs import (
    COMPILED,
    EAGER,
    LIFE,
    SEED,
    SLOT,
    STAGES,
    Ahead,
    Function,
    Inline,
    Paying,
    asked_in,
    keep,
    run,
    trained,
)
from lightning.pytorch import Callback, LightningModule, Trainer
from runs import (
    FREE,
    Plain,
    listen,
    plant,
    same,
)
from torch import Tensor

from esper_lightning import karn
from esper_lightning.callbacks import Kasmina, Tezzeret
from esper_lightning.callbacks import tezzeret as callback_module
from esper_lightning.karn import Catalogue
from esper_lightning.kasmina import faster
from esper_lightning.leyline import (
    InvalidArgument,
    SlotShape,
    SystemState,
)
from esper_lightning.tezzeret import (
    Outcome,
    Recipe,
    Tally,
    Workshop,
    stock,
    workshop,
)
from esper_lightning.tezzeret.outcome import KIND
from esper_lightning.urza import Library


class Seeing(Callback):
    """What was at the end of each epoch."""

    def __init__(self, function: Function | None = None) -> None:
        self.function = function or Function()
        self.calls: list[int] = []
        self.stages: list[str] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        slot: Any = pl_module.get_submodule(SLOT)
        self.calls.append(self.function.calls)
        self.stages.append(slot.record.stage.name)


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", "the key of these tests")
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callback_module, "ThreadPoolExecutor", Inline)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library(tmp_path / "library") as opened:
        yield opened


@pytest.fixture
def function(monkeypatch: pytest.MonkeyPatch) -> Function:
    """What every compiled artifact is loaded as."""
    loaded = Function()
    monkeypatch.setattr(stock, "load", lambda code, libraries: loaded)
    return loaded


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("tezzeret")]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    own = [record for record in caplog.records if record.name.startswith("esper_lightning")]
    return [record.getMessage() for record in own if record.levelno >= logging.WARNING]


# What it asks for and takes


@pytest.mark.usefixtures("inline")
def test_it_asks_for_what_may_be_planted_as_slots_are_called(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    (asked,) = asked_in(Tezzeret(library=library.root), monkeypatch)
    assert asked.blueprint == "parallel_mlp"
    assert asked.parameters == {"expansion": 1.0}
    assert (asked.batch, asked.dtype, asked.device) == (32, "float32", "cpu")
    assert asked.input_requires_grad
    assert (asked.shape.input.sizes, asked.shape.output.sizes) == ((6,), (6,))
    grower = Kasmina(slots=[SLOT], monitor="val_loss", rules=FREE, incubation="straight_through")
    both = asked_in(Tezzeret(library=library.root), monkeypatch, kasmina=grower)
    assert [each.input_requires_grad for each in both] == [False, True], "as it is needed"


@pytest.mark.usefixtures("inline")
def test_a_library_in_which_all_is_eager_changes_nothing(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, _, _ = run(None)
    keep(library, asked_in(Tezzeret(library=library.root), monkeypatch), EAGER)
    tezzeret = Tezzeret(library=library.root)
    module, _, trainer = run(tezzeret)
    assert same(trained(module), trained(alone))
    assert (tezzeret.tally.eager, tezzeret.tally.compiled, tezzeret.tally.unknown) == (1, 0, 0)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert logged["growth/eager"] == logged["growth/hit_rate"] == 1.0
    assert logged["growth/compiled"] == logged["growth/fallbacks"] == 0.0
    assert logged["growth/lookup_ms"] > 0


def test_with_threads_of_its_own_nothing_changes_either(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, _, _ = run(None)
    tezzeret = Tezzeret(library=library.root, limit=2)
    module, _, _ = run(tezzeret)
    assert same(trained(module), trained(alone))
    assert tezzeret.tally.unknown == 1
    assert threads() == []


@pytest.mark.usefixtures("inline")
def test_a_seed_runs_by_code_that_is_at_hand(
    library: Library, function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, without, _ = run(None)
    keep(library, asked_in(Tezzeret(library=library.root), monkeypatch), COMPILED)
    tezzeret, seeing = Tezzeret(library=library.root), Seeing(function)
    module, grower, trainer = run(tezzeret, callbacks=(seeing,))
    assert tezzeret.tally.compiled == 1
    assert seeing.calls[1] == 0
    assert seeing.calls[2] == 5, "but in the first step, whose operations are counted"
    assert seeing.calls[3] == 11
    assert tezzeret.tally.fallbacks > 0, "validation has no gradients"
    assert same(trained(module), trained(alone)), "this code is eager"
    assert grower.costs.total == without.costs.total
    assert grower.costs.per_sample == without.costs.per_sample
    assert float(trainer.callback_metrics["growth/compiled"]) == 1.0
    states = [event for event in listen(grower) if isinstance(event, SystemState)]
    assert not any(name.startswith("growth/") for state in states for name in state.metrics)


@pytest.mark.usefixtures("inline")
def test_it_stops_where_a_seed_is_called_otherwise(
    library: Library, function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grower() -> Kasmina:
        return Kasmina(slots=[SLOT], monitor="paid", rules=STAGES, incubation="straight_through")

    def grow(tezzeret: Tezzeret | None) -> tuple[Any, Seeing]:
        seeing = Seeing(function)
        options: Any = {"module": Paying, "kasmina": grower(), "callbacks": (seeing,)}
        return run(tezzeret, Ahead(LIFE), epochs=11, **options), seeing

    (alone, _, _), _ = grow(None)
    asked = asked_in(
        Tezzeret(library=library.root),
        monkeypatch,
        policy=Ahead(LIFE),
        module=Paying,
        kasmina=grower(),
    )
    keep(library, [each for each in asked if not each.input_requires_grad], COMPILED)
    tezzeret = Tezzeret(library=library.root)
    (module, _, _), seeing = grow(tezzeret)
    assert {"TRAINING", "PROBATIONARY", "FOSSILIZED"} <= set(seeing.stages)
    increases = [now - before for before, now in zip(seeing.calls, seeing.calls[1:], strict=False)]
    apart = [stage in ("TRAINING", "BLENDING", "SHADOWING") for stage in seeing.stages]
    # A stage that is reached at a boundary begins with the next epoch.
    assert [bool(increase) for increase in increases] == apart[:-1]
    assert tezzeret.tally.compiled == 1
    assert tezzeret.tally.unknown == 1, "a fossil is called as in probation"
    assert same(trained(module), trained(alone))


@pytest.mark.usefixtures("inline")
def test_after_the_run_everything_is_as_without_it(
    library: Library, function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(library, asked_in(Tezzeret(library=library.root), monkeypatch), COMPILED)
    tezzeret = Tezzeret(library=library.root)
    module, grower, _ = run(tezzeret)
    assert tezzeret.tally.compiled == 1
    (branch,) = [slot.seed for slot in grower.bed.slots.values()]
    assert branch is not None
    assert branch not in faster._runs
    calls = function.calls
    module.net(torch.randn(32, 64)).sum().backward()
    assert function.calls == calls


@pytest.mark.usefixtures("inline")
def test_every_fit_looks_things_up(
    library: Library, function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(library, asked_in(Tezzeret(library=library.root), monkeypatch), COMPILED)
    tezzeret = Tezzeret(library=library.root)
    for _ in range(2):
        run(tezzeret)
        assert tezzeret.tally.compiled == 1
    run(tezzeret, deterministic=True)
    assert function.calls == 22


@pytest.mark.usefixtures("inline")
def test_after_a_resume_what_has_grown_before_is_looked_up_too(
    library: Library, function: Function, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No policy names it any more: the branch itself is asked for."""
    keep(library, asked_in(Tezzeret(library=library.root), monkeypatch), COMPILED)
    _, _, interrupted = run(None, Ahead({1: [SEED]}, ahead=[]))
    checkpoint = tmp_path / "interrupted.ckpt"
    interrupted.save_checkpoint(checkpoint)
    alone, _, _ = run(None, Ahead({}, ahead=[]), epochs=7, ckpt_path=checkpoint)
    tezzeret, seeing = Tezzeret(library=library.root), Seeing(function)
    resumed, _, _ = run(
        tezzeret, Ahead({}, ahead=[]), epochs=7, ckpt_path=checkpoint, callbacks=(seeing,)
    )
    assert seeing.calls == [0, 6, 12], "in its first epoch it is seen how slots are called"
    assert tezzeret.tally.compiled == 1
    assert same(trained(resumed), trained(alone))


@pytest.mark.usefixtures("inline")
def test_a_branch_that_somebody_else_built_runs_by_itself(
    library: Library, function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grower() -> Kasmina:
        return Kasmina(slots=[SLOT], monitor="val_loss", rules=FREE, build=build_own)

    keep(library, asked_in(Tezzeret(library=library.root), monkeypatch), COMPILED)
    tezzeret = Tezzeret(library=library.root)
    run(tezzeret, kasmina=grower())
    assert function.calls == 0
    assert tezzeret.tally.compiled == 0


class Another(karn.get("parallel_mlp").branch):  # type: ignore[misc]
    """By the name of a blueprint of the catalogue."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(super().forward(x))


def build_own(name: str, parameters: Any, shape: SlotShape) -> Any:
    return Another(shape, **parameters)


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("compile", [False, True])
def test_a_class_that_no_other_process_can_import_is_no_reason_to_stop(
    library: Library, monkeypatch: pytest.MonkeyPatch, compile: bool
) -> None:
    class Local(karn.get("parallel_mlp").branch):  # type: ignore[misc]
        """In a function."""

    row = karn.get("parallel_mlp")
    fields = {name: getattr(row, name) for name in karn.Blueprint.__dataclass_fields__}
    local = karn.Blueprint(**(fields | {"branch": Local}))
    monkeypatch.setattr(karn, "CATALOGUE", Catalogue([local]))
    grower = Kasmina(slots=[SLOT], monitor="val_loss", rules=FREE, build=build_own)
    tezzeret = Tezzeret(library=library.root, compile=compile)
    run(tezzeret, kasmina=grower)
    assert tezzeret.tally == Tally()


@pytest.mark.usefixtures("inline")
def test_candidates_that_cannot_be_are_left_out(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = [
        plant("net.99", "parallel_mlp"),
        plant(SLOT, "flower"),
        plant(SLOT, "parallel_conv"),
        plant(SLOT, "parallel_mlp", expansion=99.0),
        plant(SLOT, "parallel_mlp", width=3),
    ]
    assert asked_in(Tezzeret(library=library.root), monkeypatch, policy=Ahead({}, ahead)) == []


@pytest.mark.usefixtures("inline")
def test_under_autocast_nothing_is_asked_for(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    tezzeret = Tezzeret(library=library.root)
    assert asked_in(tezzeret, monkeypatch, precision="bf16-mixed") == []


@pytest.mark.usefixtures("inline")
def test_in_other_precision_that_is_asked_for(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    (asked,) = asked_in(Tezzeret(library=library.root), monkeypatch, precision="64-true")
    assert asked.dtype == "float64"


# How it ends


class Failing(Plain):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if self.current_epoch == 2 and batch_idx == 1:
            raise KeyError("the power went off")
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("fails", [True, False])
def test_at_its_end_threads_and_children_are_gone(
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fails: bool,
) -> None:
    children: list[Any] = []
    start = Workshop._start

    def sleeping(self: Workshop, command: list[str], *rest: Any) -> Any:
        children.append(start(self, ["sleep", "1000"], *rest))
        return children[-1]

    monkeypatch.setattr(Workshop, "_start", sleeping)
    monkeypatch.setattr(workshop, "is_supported", lambda: True)
    begun = threading.Event()

    class Waits(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            while trainer.current_epoch == 2 and not children:
                begun.wait(0.01)

    ahead = [SEED, plant(SLOT, "low_rank"), plant(SLOT, "adapter"), plant(SLOT, "gated_mlp")]
    tezzeret = Tezzeret(library=library.root, compile=True)
    options: Any = {"callbacks": (Waits(),), "module": Failing if fails else Plain}
    if fails:
        with pytest.raises(KeyError, match="power"):
            run(tezzeret, Ahead({}, ahead), **options)
    else:
        run(tezzeret, Ahead({}, ahead), **options)
    assert len(children) == 1
    assert children[0].returncode is not None
    assert threads() == []
    assert not library.find(KIND)
    assert not told(caplog), "to end early is nothing to warn of"


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("error", [OSError(28, "No space left"), InvalidArgument("not today")])
def test_what_cannot_be_made_is_told_and_the_run_goes_on(
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    def make(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Workshop, "make", make)
    tezzeret = Tezzeret(library=library.root, compile=True)
    run(tezzeret)
    (line,) = told(caplog)
    assert line.startswith("parallel_mlp(expansion=1.0)")
    assert "stays eager" in line
    assert tezzeret.tally.unknown == 1


@pytest.mark.usefixtures("inline")
def test_what_it_has_made_is_at_hand_for_the_next_seed(
    library: Library, function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(self: Workshop, asked: Recipe) -> Outcome:
        keep(self.library, [asked], COMPILED)
        return Outcome(is_compiled=True, reason="told so", seconds=1.5)

    monkeypatch.setattr(Workshop, "make", make)
    tezzeret = Tezzeret(library=library.root, compile=True)
    run(tezzeret)
    assert tezzeret.tally.compiled == 1
    assert tezzeret.tally.compile_s == 1.5
    assert tezzeret.tally.take_ms > 0
    assert function.calls == 11
