"""Seeds that no gradient reaches, and what a run says about them."""

from typing import Any

import pytest
import torch
from runs import FREE, Plain, Script, plain_data, plain_trainer, plant, tell
from torch import Tensor, nn

from esper_lightning.callbacks import Kasmina, Tamiyo
from esper_lightning.leyline import CommandKind, Incubation


def growth(lines: Any, incubation: Incubation = Incubation.DIRECT) -> tuple[Kasmina, Tamiyo]:
    kasmina = Kasmina(
        slots=["net.0", "net.2"], monitor="val_loss", rules=FREE, incubation=incubation
    )
    return kasmina, Tamiyo(risk=False, policy=Script(lines))


class Deaf(Plain):
    """Runs its first layers without gradients, or does not use what a layer returns."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        if self.how == "no_grad":
            with torch.no_grad():
                h = self.net[0](x)
        else:
            h = self.net[0](x)
        inner = self.net[2](torch.relu(h))
        h = h if self.how == "unused" else inner
        return nn.functional.cross_entropy(self.net[4](torch.relu(h)), y)


@pytest.mark.parametrize("incubation", [Incubation.DIRECT, Incubation.STRAIGHT_THROUGH])
@pytest.mark.parametrize(("how", "slot"), [("no_grad", "net.0"), ("unused", "net.2")])
def test_a_seed_that_no_gradient_reaches_is_told_at_its_first_boundary(
    how: str, slot: str, incubation: Incubation, caplog: pytest.LogCaptureFixture
) -> None:
    lines = {
        0: [plant("net.0", "parallel_mlp"), plant("net.2", "parallel_mlp")],
        2: [tell(CommandKind.FOSSILIZE, slot)],
    }
    kasmina, tamiyo = growth(lines, incubation)
    refused: list[str] = []
    kasmina.subscribe(lambda event: refused.append(getattr(event, "refused", "") or ""))
    with caplog.at_level("WARNING"):
        plain_trainer([kasmina, tamiyo], epochs=4).fit(Deaf(how), *plain_data())
    assert caplog.text.count("no gradient reached") == 1
    told = f"slot {slot}: no gradient reached parallel_mlp in epoch 2, and it cannot learn there"
    assert told in caplog.text
    record = kasmina.bed.slots[slot].record
    if incubation is Incubation.DIRECT:
        assert any("a gradient reached the seed 0 >= 1" in text for text in refused)
    else:
        assert "a gradient reached the seed 0 >= 1" in record.reason


def test_seeds_that_learn_or_had_nothing_to_learn_from_are_not_complained_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("WARNING"):
        plain_trainer(growth({0: [plant("net.0", "parallel_mlp")]}), epochs=4).fit(
            Plain(), *plain_data()
        )
    assert "no gradient reached" not in caplog.text
