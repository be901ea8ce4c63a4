"""A slot that is called several times in one pass."""

import pytest
import torch
import torch.nn.functional as F
from seedlings import build, command, make_bed, moment
from torch import Tensor, nn

from esper_lightning.kasmina import SeedBed, insert_slots
from esper_lightning.kasmina.slot import SAMPLE_ROWS
from esper_lightning.leyline import CommandKind, Incubation, SeedStage, SlotUnsuitable


class Shift(nn.Module):
    """Needs its input no more once it has run, so that others may overwrite it."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(features, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class Recurrent(nn.Module):
    """One layer, used over and over; the last use is followed by something that works in place."""

    def __init__(self, times: int = 3) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 4, 3, padding=1)
        self.mix = Shift(4)
        self.head = nn.Linear(4, 3)
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        for _ in range(self.times - 1):
            h = 2 * torch.sin(self.mix(h))
        last = self.mix(h)
        return self.head((last + h.mul_(0.5)).mean((2, 3)))


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, 1, 8, 8, generator=generator)
    return x, torch.randint(0, 3, (4,), generator=generator)


def bed_of(blueprint: str | None, *, incubation: Incubation) -> SeedBed:
    torch.manual_seed(0)
    bed, _ = make_bed(Recurrent(), incubation=incubation)
    if blueprint is not None:
        bed.apply(command(CommandKind.GERMINATE, blueprint=blueprint), moment(0))
    return bed


@pytest.mark.parametrize("blueprint", ["conv", "parallel", "nan", "exploding", "polluter"])
def test_a_seed_in_training_acts_in_no_call(blueprint: str) -> None:
    x, y = data()
    traces = []
    for planted in (None, blueprint):
        bed = bed_of(planted, incubation=Incubation.STRAIGHT_THROUGH)
        bed.watch.start_epoch()
        host = bed.network
        own = [p for name, p in host.named_parameters() if ".seed." not in name]
        for _ in range(2):
            logits = host(x)
            host.zero_grad()
            F.cross_entropy(logits, y).backward()
            bed.watch.after_step(None)
        traces.append([logits, *(p.grad for p in own)])
    assert all(torch.equal(a, b) for a, b in zip(*traces, strict=True))
    seed = bed.slots["mix"].seed
    assert seed is not None
    assert any(p.grad is not None for p in seed.parameters())


def test_a_coupled_seed_acts_in_every_call() -> None:
    x, _ = data()
    bed = bed_of("conv", incubation=Incubation.DIRECT)
    slot = bed.slots["mix"]
    assert slot.record.stage is SeedStage.PROBATIONARY
    assert slot.seed is not None
    with torch.no_grad():
        slot.seed.last.weight.normal_()
        host = bed.network
        h = host.embed(x)
        for _ in range(2):
            g = slot.base_layer(h)
            h = 2 * torch.sin(g + slot.seed(g))
        g = slot.base_layer(h)
        expected = host.head((g + slot.seed(g) + h * 0.5).mean((2, 3)))
        assert torch.allclose(host(x), expected, atol=1e-6)


def test_every_call_is_looked_at_and_the_first_is_the_sample() -> None:
    x, y = data()
    bed = bed_of(None, incubation=Incubation.DIRECT)
    slot = bed.slots["mix"]
    bed.watch.start_epoch()
    assert not slot.record.mutates_input
    F.cross_entropy(bed.network(x), y).backward()
    bed.watch.after_step(None)
    assert slot.record.mutates_input, "only the last call's input was overwritten"
    assert not slot.listening
    assert slot.sample is not None
    assert torch.equal(slot.sample[0], bed.network.embed(x)[:SAMPLE_ROWS])


def test_calls_with_other_feature_maps_are_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Tanh()
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.mix(self.head(self.mix(x)))

    host = Twice()
    insert_slots(host, ["mix"], build=build)["mix"].listen()
    with pytest.raises(SlotUnsuitable, match="feature maps of different kinds"):
        host(torch.randn(2, 4))


def test_other_sizes_of_the_same_features_are_welcome() -> None:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Conv2d(1, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.mix(x).mean((2, 3)) + self.mix(F.avg_pool2d(x, 2)).mean((2, 3))

    torch.manual_seed(0)
    bed, _ = make_bed(Pyramid(), incubation=Incubation.DIRECT)
    bed.apply(command(CommandKind.GERMINATE, blueprint="parallel"), moment(0))
    assert bed.network(torch.randn(2, 1, 7, 7)).shape == (2, 4)
