"""Shadow incubation: the gradient is that of the loss with the seeds' outputs in it."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from seedlings import Host, batches, command, make_bed, moment
from torch import Tensor, nn

from esper_lightning.kasmina import SeedBed
from esper_lightning.kasmina.shadow import is_due, shadow_step
from esper_lightning.leyline import CommandKind, Incubation, InvalidArgument, SeedStage


class Chain(nn.Module):
    """Three linear layers, without anything random."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mix, self.last = (nn.Conv2d(c, 4, 3, padding=1) for c in (1, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.mix(torch.tanh(self.first(x))))).mean(dim=(2, 3))


def shadowed(host: nn.Module, **blueprints: str) -> SeedBed:
    bed, _ = make_bed(
        host, paths=tuple(blueprints), incubation=Incubation.SHADOW, second_passes=True
    )
    for path, blueprint in blueprints.items():
        bed.apply(command(CommandKind.GERMINATE, slot=path, blueprint=blueprint), moment(0))
        assert bed.slots[path].record.stage is SeedStage.TRAINING
    return bed


def gradients(bed: SeedBed, path: str) -> list[Tensor]:
    seed = bed.slots[path].seed
    assert seed is not None
    return [p.grad for p in seed.parameters() if p.grad is not None]


def test_a_seed_gets_the_gradient_of_the_loss_with_its_output_added() -> None:
    torch.manual_seed(0)
    host = Chain()
    bed = shadowed(host, mix="loud")
    slot = bed.slots["mix"]
    x, y = batches(1)[0]

    def loss() -> Tensor:
        return F.cross_entropy(host(x), y)

    shadow_step(host, bed.slots, loss)
    with torch.no_grad():
        h = slot.base_layer(torch.tanh(host.first(x)))
    assert slot.seed is not None
    expected = F.cross_entropy(host.last(torch.tanh(h + slot.seed(h))).mean(dim=(2, 3)), y)
    by_hand = torch.autograd.grad(expected, list(slot.seed.parameters()))
    found = gradients(bed, "mix")
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(found, by_hand, strict=True))
    assert all(bool(gradient.any()) for gradient in found[:1])
    own = [p for p in host.parameters() if not any(p is q for q in slot.seed.parameters())]
    assert all(p.grad is None and p.requires_grad for p in own)


def test_gradients_add_up_and_are_scaled_as_the_steps_are() -> None:
    torch.manual_seed(0)
    host = Chain()
    bed = shadowed(host, mix="loud")
    x, y = batches(1)[0]
    shadow_step(host, bed.slots, lambda: F.cross_entropy(host(x), y))
    once = [gradient.clone() for gradient in gradients(bed, "mix")]
    shadow_step(host, bed.slots, lambda: F.cross_entropy(host(x), y), scale=torch.tensor(0.5))
    assert all(
        torch.allclose(now, 1.5 * before)
        for now, before in zip(gradients(bed, "mix"), once, strict=True)
    )


def test_the_main_pass_gives_a_seed_in_shadow_nothing() -> None:
    torch.manual_seed(0)
    host = Host()
    bed = shadowed(host, mix="loud")
    x, y = batches(1)[0]
    F.cross_entropy(host(x), y).backward()
    assert gradients(bed, "mix") == []


@pytest.mark.parametrize("bad", ["nan", "exploding"])
def test_a_bad_seed_is_left_out_and_spoils_no_other(bad: str) -> None:
    def trained(*, beside: str | None) -> list[Tensor]:
        torch.manual_seed(0)
        host = Chain()
        planted = {"mix": "loud"} if beside is None else {"mix": "loud", "last": beside}
        bed = shadowed(host, **planted)
        x, y = batches(1)[0]
        shadow_step(host, bed.slots, lambda: F.cross_entropy(host(x), y))
        return gradients(bed, "mix")

    alone, together = trained(beside=None), trained(beside=bad)
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(alone, together, strict=True))
    assert alone


def test_seeds_of_one_pass_see_each_other() -> None:
    torch.manual_seed(0)
    host = Chain()
    bed = shadowed(host, mix="loud", last="loud")
    x, y = batches(1)[0]
    shadow_step(host, bed.slots, lambda: F.cross_entropy(host(x), y))
    together = [gradient.clone() for gradient in gradients(bed, "mix")]
    for slot in bed.slots.values():
        assert slot.seed is not None
        slot.seed.zero_grad()
    bed.apply(command(CommandKind.PAUSE, slot="last"), moment(0))
    shadow_step(host, bed.slots, lambda: F.cross_entropy(host(x), y))
    alone = gradients(bed, "mix")
    assert not all(torch.allclose(a, b) for a, b in zip(alone, together, strict=True))
    assert gradients(bed, "last") == []


@pytest.mark.parametrize(("share", "expected"), [(1.0, 100), (0.5, 50), (0.3, 30), (0.01, 1)])
def test_a_share_of_the_batches_is_spread_evenly(share: float, expected: int) -> None:
    due = [batch for batch in range(100) if is_due(batch, share)]
    assert len(due) == expected
    assert due[0] == 0
    assert all(b - a <= 1 / share + 1 for a, b in pairwise(due))


def test_without_second_passes_shadow_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"'shadow'.*Kasmina\(loss=fn\)"):
        make_bed(Host(), incubation=Incubation.SHADOW)
    bed, _ = make_bed(Host())
    wanted = command(CommandKind.GERMINATE)
    asked = type(wanted)(
        id="1",
        run_id="run",
        kind=wanted.kind,
        slot=wanted.slot,
        blueprint=wanted.blueprint,
        incubation=Incubation.SHADOW,
    )
    with pytest.raises(InvalidArgument, match="'shadow'"):
        bed.apply(asked, moment(0))
    assert bed.slots["mix"].record.stage is SeedStage.DORMANT
