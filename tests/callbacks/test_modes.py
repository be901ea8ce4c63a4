"""Ways of training, each with growth: precision, accumulation, clipping, Lightning's callbacks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch.callbacks as lightning_callbacks
import pytest
import torch
from interrupted_runs import LENIENT, differences, run
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from runs import (
    Plain,
    Script,
    digits_run,
    listen,
    moves,
    plain_data,
    plain_trainer,
    plant,
    tell,
)
from torch import nn

from esper_lightning.callbacks import Governor, Kasmina, Tamiyo
from esper_lightning.kasmina import LifecycleRules
from esper_lightning.leyline import (
    BlendSchedule,
    CommandKind,
    Decision,
    Incubation,
    Intervention,
    SeedStage,
    UnsupportedTraining,
)
from esper_lightning.tolaria import Tolaria

A, B = "features.1", "features.2"
RULES = LifecycleRules(blend=BlendSchedule(num_steps=3), embargo=1, gates=LENIENT)
LINES = {
    0: [plant(A), plant(B, "conv_residual")],
    5: [tell(CommandKind.FOSSILIZE, A), tell(CommandKind.CULL, B)],
}
MODES: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "32-true"},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "bf16-true": {"precision": "bf16-true"},
    "fp64": {"precision": "64-true"},
    "accumulation": {"accumulate_grad_batches": 3},
    "clip norm": {"gradient_clip_val": 0.05},
    "clip value": {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
}
DTYPES = {"bf16-true": torch.bfloat16, "fp64": torch.float64}


class Parameters(Callback):
    """Live seeds' parameters as they are planted, and as they are at the end of each epoch."""

    def __init__(self) -> None:
        self.seen: list[list[torch.Tensor]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seeds = [p for name, p in pl_module.named_parameters() if ".seed." in name]
        self.seen.append([p.detach().clone() for p in seeds])


@pytest.mark.parametrize("incubation", Incubation, ids=lambda each: each.value)
@pytest.mark.parametrize("mode", MODES)
def test_seeds_go_through_their_lives(mode: str, incubation: Incubation) -> None:
    parameters = Parameters()
    module, kasmina, _ = digits_run(
        Script(LINES),
        epochs=8,
        incubation=incubation,
        rules=RULES,
        callbacks=[parameters],
        **MODES[mode],
    )
    events = listen(kasmina)
    assert not [e for e in events if isinstance(e, Decision) and e.refused]
    apart = [] if incubation is Incubation.DIRECT else ["TRAINING", "BLENDING", "SHADOWING"]
    lived = ["DORMANT", "GERMINATED", *apart, "PROBATIONARY"]
    assert moves(events, A) == [*lived, "FOSSILIZED", "DORMANT"]
    assert moves(events, B)[: len(lived) + 1] == [*lived, "CULLED"]
    dtypes = {tensor.dtype for tensors in parameters.seen for tensor in tensors}
    assert dtypes == {DTYPES.get(mode, torch.float32)}
    born, later = parameters.seen[1], parameters.seen[3]
    assert any(not torch.equal(a, b) for a, b in zip(born, later, strict=True)), "they train"
    assert all(torch.isfinite(p).all() for p in module.parameters())
    fossil = kasmina.bed.slots[A].fossils
    assert {p.dtype for p in fossil.parameters()} == dtypes


RESUMED: dict[str, Callable[[], dict[str, Any]]] = {
    "`precision=16-mixed`": lambda: {"plugins": [scaled()]},
    "`precision=bf16-mixed`": lambda: MODES["bf16-mixed"],
    "`precision=bf16-true`": lambda: MODES["bf16-true"],
    "`precision=64-true`": lambda: MODES["fp64"],
    "accumulation of two batches": lambda: {"accumulate_grad_batches": 2},
    "clipping by norm": lambda: MODES["clip norm"],
    "clipping by value": lambda: MODES["clip value"],
}
"""Ways of training by their names in docs/resume.md."""
POINTS = ("3-end", "4-within", "6-within", "7-end")
TITLES = {"sgd": "SGD", "adamw": "AdamW"}
COMBINATIONS = [
    (mode, incubation, list(TITLES)[(row + column) % 2])
    for row, mode in enumerate(RESUMED)
    for column, incubation in enumerate(Incubation)
]
"""Each mode with each incubation, and with each optimiser once at least."""


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step:UserWarning")
@pytest.mark.parametrize(("mode", "incubation", "optimizer"), COMBINATIONS)
def test_a_resumed_run_is_the_same(
    tmp_path: Path, mode: str, incubation: Incubation, optimizer: str
) -> None:
    whole = run(incubation, optimizer, save_in=tmp_path, **RESUMED[mode]())
    for point in POINTS:
        checkpoint = tmp_path / f"{point}.ckpt"
        rest = run(incubation, optimizer, ckpt_path=checkpoint, **RESUMED[mode]())
        assert differences(whole, rest) == [], point


def test_the_page_says_which_resumed() -> None:
    page = (Path(__file__).parents[2] / "docs/resume.md").read_text()
    head = ["with", *(kind.value.replace("_", "-") for kind in Incubation)]
    rows = [
        [mode, *(TITLES[opt] for name, _, opt in COMBINATIONS if name == mode)] for mode in RESUMED
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
    assert table in page, f"docs/resume.md is to hold:\n{table}"


# A loss scaler


class Scales(Callback):
    """The scale of the loss, and the host, after every step."""

    def __init__(self) -> None:
        self.scales: list[float] = []
        self.hosts: list[torch.Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.scales.append(trainer.precision_plugin.scaler.get_scale())
        self.hosts.append(pl_module.host.head.weight.detach().clone())


def scaled(init_scale: float = 2.0**30) -> MixedPrecision:
    """Half precision on the CPU, by default with a scale under which first gradients overflow."""
    scaler = torch.amp.GradScaler("cpu", init_scale=init_scale, growth_interval=1000)
    return MixedPrecision("16-mixed", "cpu", scaler)


EARLY = pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step:UserWarning")
"""Where the scaler skips the first step, Lightning steps the scheduler all the same."""


@EARLY
@pytest.mark.parametrize("incubation", Incubation, ids=lambda each: each.value)
def test_a_step_that_the_scaler_skips_is_no_fault_of_a_seed(incubation: Incubation) -> None:
    scales = Scales()
    _, kasmina, _ = digits_run(
        Script(LINES),
        epochs=8,
        incubation=incubation,
        rules=RULES,
        callbacks=[scales],
        plugins=[scaled()],
    )
    assert scales.scales[0] < 2.0**30, "the first step was skipped"
    assert torch.equal(scales.hosts[0], scales.hosts[1]) or scales.scales[1] == scales.scales[0]
    assert not [e for e in listen(kasmina) if isinstance(e, Decision) and e.refused]
    assert "FOSSILIZED" in moves(listen(kasmina), A)


@EARLY
def test_steps_that_were_skipped_after_planting_are_not_counted() -> None:
    class Overflows(Callback):
        """The scale grows too large in the middle of the second epoch."""

        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
        ) -> None:
            if trainer.current_epoch == 1 and batch_idx == 1:
                trainer.precision_plugin.scaler._scale.fill_(2.0**60)  # type: ignore[attr-defined]

    scales = Scales()
    _, kasmina, _ = digits_run(
        Script({0: [plant(A)]}),
        epochs=2,
        incubation=Incubation.STRAIGHT_THROUGH,
        callbacks=[Overflows(), scales],
        plugins=[scaled()],
    )
    assert max(scales.scales) >= 2.0**59
    seed = kasmina.bed.slots[A].record.seed
    assert seed is None or seed.evidence[-1].dropped == 0
    assert moves(listen(kasmina), A)[:3] == ["DORMANT", "GERMINATED", "TRAINING"]


def test_a_governor_does_not_look_at_steps_that_the_scaler_skips() -> None:
    class Overflows(Callback):
        def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.current_epoch == 3 and trainer.global_step % 5 < 2:
                pl_module.host.head.weight.grad[0, 0] = float("inf")  # type: ignore[index,union-attr]

    scales = Scales()
    _, kasmina, _ = digits_run(
        Script({0: [plant(A)]}),
        epochs=5,
        callbacks=[scales, Governor(), Overflows()],
        plugins=[scaled(2.0**8)],
    )
    assert torch.equal(scales.hosts[14], scales.hosts[16]), "two steps were skipped"
    assert not torch.equal(scales.hosts[16], scales.hosts[17])
    assert not [event for event in listen(kasmina) if isinstance(event, Intervention)]
    assert kasmina.bed.slots[A].record.seed is not None


# Lightning's callbacks


def test_checkpoints_of_every_kind_hold_what_had_grown(tmp_path: Path) -> None:
    best = ModelCheckpoint(
        dirpath=tmp_path,
        filename="best-{epoch}-{val/loss:.3f}",
        auto_insert_metric_name=False,
        monitor="val/loss",
        save_top_k=2,
        save_last=True,
    )
    module, kasmina, _ = digits_run(
        Script(LINES), epochs=8, rules=RULES, callbacks=[best], enable_checkpointing=True
    )
    assert len(best.best_k_models) == 2
    assert all("=" not in path for path in (*best.best_k_models, best.last_model_path))
    host = sum(p.numel() for p in module.parameters()) - sum(
        p.numel() for slot in kasmina.bed.slots.values() for p in slot.branch_parameters()
    )
    for path in (*best.best_k_models, best.last_model_path):
        grown = Tolaria.load_from_checkpoint(path, host=fresh_host(), num_classes=10)
        saved = torch.load(path, weights_only=True)["state_dict"]
        grown.load_state_dict(saved)
        assert sum(p.numel() for p in grown.parameters()) >= host
        assert set(grown.state_dict()) == set(saved)
    assert sum(p.numel() for p in grown.parameters()) > host


def fresh_host() -> nn.Module:
    from esper_lightning.tolaria import CNN

    return CNN(input_shape=(1, 8, 8), num_classes=10, width=3)


def test_rates_of_slots_are_monitored_under_their_names(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    digits_run(
        Script(LINES),
        epochs=7,
        rules=RULES,
        callbacks=[LearningRateMonitor(logging_interval="step")],
        logger=logger,
        log_every_n_steps=1,
    )
    columns = (Path(logger.log_dir) / "metrics.csv").read_text().partition("\n")[0]
    assert sum(A in column for column in columns.split(",")) >= 1


def test_a_run_that_stops_early_leaves_no_seed_behind() -> None:
    stop = EarlyStopping("val/loss", patience=0, min_delta=10.0)
    _, kasmina, trainer = digits_run(Script(LINES), epochs=8, rules=RULES, callbacks=[stop])
    assert trainer.current_epoch == 2
    assert kasmina.bed.slots[A].record.stage is SeedStage.PROBATIONARY


def test_the_number_of_accumulated_batches_may_change() -> None:
    module, kasmina, _ = digits_run(
        Script(LINES),
        epochs=8,
        incubation=Incubation.STRAIGHT_THROUGH,
        rules=RULES,
        callbacks=[GradientAccumulationScheduler({0: 1, 2: 2, 4: 4})],
    )
    assert "FOSSILIZED" in moves(listen(kasmina), A)
    assert all(torch.isfinite(p).all() for p in module.parameters())


@pytest.mark.filterwarnings("ignore")
def test_a_batch_size_is_found_before_the_network_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sized(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.batch_size = 64

        def train_dataloader(self) -> Any:
            return plain_data(batch_size=self.batch_size)[0]

        def val_dataloader(self) -> Any:
            return plain_data()[1]

    monkeypatch.chdir(tmp_path)
    finder = BatchSizeFinder(mode="power", max_trials=2, steps_per_trial=2)
    kasmina = Kasmina(slots=["net.0"], monitor="val_loss", rules=RULES)
    lines = {1: [plant("net.0", "parallel_mlp")]}
    module = Sized()
    trainer = plain_trainer(
        [finder, Tamiyo(risk=False, policy=Script(lines)), kasmina],
        epochs=5,
        default_root_dir=tmp_path,
    )
    trainer.fit(module)
    assert module.batch_size in (4, 8), "2, doubled once, or twice before Lightning 2.6"
    assert trainer.current_epoch == 5
    assert moves(listen(kasmina), "net.0") == ["DORMANT", "GERMINATED", "PROBATIONARY"]
    assert kasmina.costs.num_samples == 5 * 192, "trials are not billed"


def test_averages_of_weights_are_refused() -> None:
    averaging = getattr(lightning_callbacks, "EMAWeightAveraging", None)
    if averaging is None:
        pytest.skip("this Lightning has no such callback")
    with pytest.raises(UnsupportedTraining, match="EMAWeightAveraging keeps a copy"):
        digits_run(Script({}), callbacks=[averaging()])
