"""Shadow incubation and the isolation monitor within a real Trainer."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from runs import (
    FREE,
    Plain,
    Script,
    digits_run,
    listen,
    moves,
    plain_data,
    plain_trainer,
    plant,
    same,
    weights,
)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from esper_lightning.callbacks import Kasmina, Tamiyo, TrainingFlops
from esper_lightning.karn import build as karn_build
from esper_lightning.kasmina import Branch, LifecycleRules
from esper_lightning.leyline import (
    Attachment,
    Incubation,
    InvalidArgument,
    SlotShape,
    UnsupportedTraining,
)


def plain_loss(module: Plain, batch: list[Tensor]) -> Tensor:
    x, y = batch
    return F.cross_entropy(module.net(x), y)


def plain_run(
    kasmina: Kasmina | None, *, epochs: int = 4, module: Plain | None = None, **options: Any
) -> Plain:
    torch.manual_seed(0)
    module = module or Plain()
    callbacks: list[Any] = []
    if kasmina is not None:
        script = Script({0: [plant("net.2", "parallel_mlp", expansion=1.0)]})
        callbacks = [kasmina, Tamiyo(risk=False, policy=script)]
    plain_trainer(callbacks, epochs=epochs, **options).fit(module, *plain_data())
    return module


def kasmina(**options: Any) -> Kasmina:
    return Kasmina(slots=["net.2"], monitor="val_loss", rules=options.pop("rules", FREE), **options)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_seed_in_shadow_trains_and_its_host_does_not_notice(
    accumulate: int, precision: str
) -> None:
    options: dict[str, Any] = {
        "accumulate_grad_batches": accumulate,
        "precision": precision,
        "gradient_clip_val": 0.1,
    }
    alone = plain_run(None, epochs=2, **options)
    grower = kasmina(incubation="shadow", loss=plain_loss)
    grown = plain_run(grower, epochs=2, **options)
    slot = grower.bed.slots["net.2"]
    host = {
        name.replace(".base_layer", ""): value
        for name, value in weights(grown).items()
        if not name.startswith(("net.2.seed", "net.2.alpha", "net.2._extra"))
    }
    assert same(host, weights(alone))
    assert slot.seed is not None
    assert slot.record.seed is not None
    assert slot.record.seed.isolation_checks == 1
    evidence = slot.record.seed.evidence[-1]
    assert evidence.gradient_norm
    assert any(bool((p != 0).any()) for p in list(slot.seed.parameters())[-2:]), "it moved"


def test_a_seed_in_shadow_goes_all_the_way() -> None:
    _, grower, _ = digits_run(Script({0: [plant()]}), epochs=6, incubation=Incubation.SHADOW)
    events = listen(grower)
    assert moves(events)[1:5] == ["GERMINATED", "TRAINING", "BLENDING", "SHADOWING"]


def test_shadow_needs_a_loss_and_says_so() -> None:
    with pytest.raises(InvalidArgument, match=r"Kasmina\(loss=fn\)"):
        plain_run(kasmina(incubation="shadow"))


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (lambda module, batch: None, "NoneType"),
        (lambda module, batch: module.net(batch[0]), r"torch.Size\(\[32, 10\]\)"),
        (lambda module, batch: plain_loss(module, batch).detach(), "with a gradient"),
    ],
)
def test_a_loss_that_is_none_is_refused(loss: Any, told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        plain_run(kasmina(incubation="shadow", loss=loss))


class Reentrant(Plain):
    """Computes its inner layers again in the backward pass, in torch's older form or its newer."""

    reentrant = True

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return checkpointed_loss(self, batch)


def checkpointed_loss(module: Reentrant, batch: list[Tensor]) -> Tensor:
    x, y = batch
    h = module.net[1](module.net[0](x))
    h = checkpoint(module.net[2:4], h, use_reentrant=module.reentrant)
    return F.cross_entropy(module.net[4](h), y)


@pytest.mark.parametrize("incubation", ["straight_through", "shadow"])
def test_checkpoints_that_second_passes_cannot_cross_are_told(incubation: str) -> None:
    grower = kasmina(incubation=incubation, loss=checkpointed_loss)
    with pytest.raises(UnsupportedTraining, match="checkpoint with use_reentrant=False, or do"):
        plain_run(grower, epochs=2, module=Reentrant())
    module, again = Reentrant(), kasmina(incubation=incubation, loss=checkpointed_loss)
    module.reentrant = False
    plain_run(again, epochs=2, module=module)
    record = again.bed.slots["net.2"].record.seed
    assert record is not None
    assert record.evidence[-1].gradient_norm


def test_the_monitor_never_changes_training() -> None:
    def run(every: int | None) -> dict[str, Tensor]:
        rules = LifecycleRules(monitor_every=every, min_ages={"TRAINING": 3}, gates=FREE.gates)
        grower = kasmina(incubation="straight_through", loss=plain_loss, rules=rules)
        module = plain_run(grower)
        found = weights(module)
        return {name: value for name, value in found.items() if "_extra_state" not in name}

    assert same(run(1), run(None))


class Emptying(Plain):
    """Takes its batch apart while it uses it."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:  # type: ignore[override]
        return F.cross_entropy(self.net(batch.pop("x")), batch.pop("y"))

    def on_after_batch_transfer(self, batch: list[Tensor], dataloader_idx: int) -> Any:
        return {"x": batch[0], "y": batch[1]} if self.trainer.training else batch


def test_a_step_may_empty_its_batch() -> None:
    def loss(module: Plain, batch: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(module.net(batch["x"]), batch["y"])

    grower = kasmina(incubation="shadow", loss=loss)
    plain_run(grower, module=Emptying(), epochs=2)
    record = grower.bed.slots["net.2"].record.seed
    assert record is not None
    assert record.evidence[-1].gradient_norm


class Meddler(Branch):
    """Multiplies the weights of the host's first layer by 1.0001 in every forward pass."""

    attachment = Attachment.SERIES

    def __init__(self, shape: SlotShape) -> None:
        super().__init__()
        self.last = nn.Linear(shape.output.features, shape.output.features)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            Meddler.host.net[0].weight.mul_(1.0001)
        return self.last(x)

    host: Any = None


def build(name: str, parameters: Any, shape: SlotShape) -> Branch:
    return Meddler(shape) if name == "parallel_mlp" else karn_build(name, parameters, shape)


@pytest.mark.parametrize("incubation", ["straight_through", "shadow"])
def test_a_seed_that_meddles_is_quarantined(
    incubation: str, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    module = Meddler.host = Plain()
    rules = LifecycleRules(min_ages={"TRAINING": 1}, gates=FREE.gates)
    grower = kasmina(incubation=incubation, loss=plain_loss, rules=rules, build=build)
    events = listen(grower)
    script = Script({0: [plant("net.2", "parallel_mlp")]})
    with caplog.at_level("WARNING"):
        plain_trainer([grower, Tamiyo(risk=False, policy=script)], epochs=6).fit(
            module, *plain_data()
        )
    assert "isolation violation 3 of 3" in caplog.text
    assert moves(events, "net.2")[1:4] == ["GERMINATED", "TRAINING", "CULLED"]
    culled = grower.bed.slots["net.2"].record.culls[0]
    assert "quarantined" in culled.reason
    assert culled.culled_epoch == 3
    assert script.states[3].slots[0].quarantined == ("parallel_mlp",)
    assert script.states[2].slots[0].isolation_violations == 2


def test_both_sides_of_a_comparison_count_alike() -> None:
    torch.manual_seed(0)
    counter = TrainingFlops()
    trainer = plain_trainer([counter], epochs=3)
    trainer.fit(Plain(), *plain_data())
    torch.manual_seed(0)
    grower = kasmina()
    plain_trainer([grower], epochs=3).fit(Plain(), *plain_data())
    layers = 64 * 6 + 6 * 6 + 6 * 10
    # Forward, and two products backward but for the gradient of the input.
    by_hand = 3 * 192 * (2 * 3 * layers - 2 * 64 * 6)
    assert counter.costs.total == grower.costs.total == by_hand
    assert float(trainer.callback_metrics[TrainingFlops.METRIC]) == by_hand
    with pytest.raises(InvalidArgument, match="leave TrainingFlops out"):
        plain_trainer([kasmina(), TrainingFlops()], epochs=1).fit(Plain(), *plain_data())


def test_second_passes_are_on_the_bill() -> None:
    def run(share: float) -> float:
        rules = LifecycleRules(
            shadow_share=share,
            monitor_every=None,
            min_ages={"TRAINING": 9},
            gates=FREE.gates,
        )
        grower = kasmina(incubation="shadow", loss=plain_loss, rules=rules)
        plain_run(grower, epochs=3)
        return grower.costs.total

    host = 3 * 192 * (2 * 3 * (64 * 6 + 6 * 6 + 6 * 10) - 2 * 64 * 6)
    half, whole = run(0.5) - host, run(1.0) - host
    assert half == pytest.approx(whole / 2)
    assert 0 < whole < host


class Teacher(Plain):
    """Keeps a moving average of its first layer as a parameter, written in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.average = nn.Parameter(torch.zeros(6, 64), requires_grad=False)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return teacher_loss(self, batch)


def teacher_loss(module: Teacher, batch: list[Tensor]) -> Tensor:
    weight = module.net[0].weight
    with torch.no_grad():
        module.average.lerp_(weight, 0.1)
    return plain_loss(module, batch) + 0.01 * (weight - module.average).square().sum()


def test_second_passes_leave_alone_what_a_forward_pass_writes() -> None:
    def run(grower: Kasmina | None) -> dict[str, Tensor]:
        torch.manual_seed(0)
        found = weights(plain_run(grower, epochs=3, module=Teacher()))
        return {
            name.replace(".base_layer", ""): value
            for name, value in found.items()
            if not name.startswith(("net.2.seed", "net.2.alpha", "net.2._extra"))
        }

    patient = LifecycleRules(min_ages={"TRAINING": 9}, gates=FREE.gates)
    for incubation in ("straight_through", "shadow"):
        grower = kasmina(incubation=incubation, loss=teacher_loss, rules=patient)
        assert same(run(grower), run(None))
        record = grower.bed.slots["net.2"].record.seed
        assert record is not None
        assert record.isolation_checks == 2
        assert record.isolation_violations == 0


def test_a_host_may_leave_the_slot_out_of_some_passes() -> None:
    class Dropping(Plain):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            self.skipped = batch_idx % 2 == 0
            return dropping_loss(self, batch)

    def dropping_loss(module: Any, batch: list[Tensor]) -> Tensor:
        x, y = batch
        h = module.net[1](module.net[0](x))
        h = h if module.skipped else module.net[2](h)
        return F.cross_entropy(module.net[4](module.net[3](h)), y)

    rules = LifecycleRules(shadow_share=1.0, monitor_every=None, gates=FREE.gates)
    grower = kasmina(incubation="shadow", loss=dropping_loss, rules=rules)
    plain_run(grower, epochs=2, module=Dropping())
    record = grower.bed.slots["net.2"].record.seed
    assert record is not None
    assert record.evidence[-1].gradient_norm
