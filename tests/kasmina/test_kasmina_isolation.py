"""Promise 1: a seed in training never disturbs its host. Everything here is exact equality."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from seedlings import SEEDLINGS, Host, batches, command, make_bed, moment
from torch import Tensor

from esper_lightning.kasmina.straight_through import straight_through
from esper_lightning.leyline import CommandKind, SeedStage

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
}


def train(
    *, seed: str | None, make_optimizer: Callable[..., torch.optim.Optimizer], clip: bool
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Eight steps; the seed is planted after the third. Returns every trace of the host."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    host = Host()
    bed, optimizer = make_bed(host, make_optimizer=make_optimizer)
    slot = bed.slots["mix"]
    host_parameters = [p for group in optimizer.param_groups[:1] for p in group["params"]]
    traces: list[Tensor] = []
    for step, (x, y) in enumerate(batches(8)):
        if step == 3 and seed is not None:
            bed.apply(command(CommandKind.GERMINATE, blueprint=seed), moment(0))
            assert slot.record.stage is SeedStage.TRAINING
        bed.watch.before_step(step)
        logits = host(x)
        loss = F.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        bed.watch.after_backward()
        bed.watch.before_optimizer_step(step)
        if clip:
            with bed.groups.without_seeds():
                held = [p for group in optimizer.param_groups for p in group["params"]]
                torch.nn.utils.clip_grad_norm_(held, 0.1)
            bed.watch.clip_seeds(norm=0.1)
        traces += [logits.detach().clone(), loss.detach().clone()]
        traces += [p.grad.clone() for p in host_parameters if p.grad is not None]
        optimizer.step()
        bed.watch.after_step(loss.detach())
        traces += [p.detach().clone() for p in host_parameters]
        traces += [
            value.clone()
            for p in host_parameters
            for value in optimizer.state[p].values()
            if isinstance(value, Tensor)
        ]
        traces += [buffer.clone() for name, buffer in host.named_buffers() if "seed" not in name]
        traces += [torch.get_rng_state(), torch.tensor(random.getstate()[1][:-1])]
        traces.append(torch.from_numpy(np.random.get_state()[1].astype(np.int64)))
    seed_weights = {} if slot.seed is None else dict(slot.seed.state_dict())
    return traces, seed_weights


@pytest.mark.parametrize("clip", [False, True], ids=["", "clipped"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("seed", SEEDLINGS)
def test_host_is_bit_identical_with_a_seed_in_training(
    seed: str, optimizer: str, clip: bool
) -> None:
    alone, _ = train(seed=None, make_optimizer=OPTIMIZERS[optimizer], clip=clip)
    with_seed, weights = train(seed=seed, make_optimizer=OPTIMIZERS[optimizer], clip=clip)
    assert len(alone) == len(with_seed)
    assert all(torch.equal(a, b) for a, b in zip(alone, with_seed, strict=True))
    assert weights, "the seed must have been there"


def test_the_comparison_would_notice_a_coupled_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, _ = train(seed=None, make_optimizer=OPTIMIZERS["sgd"], clip=False)

    def leaky(host: Tensor, seed: Tensor, *, trust_radius: float) -> Tensor:
        return host + 1e-3 * seed

    monkeypatch.setattr("esper_lightning.kasmina.slot.straight_through", leaky)
    leaked, _ = train(seed="loud", make_optimizer=OPTIMIZERS["sgd"], clip=False)
    assert not all(torch.equal(a, b) for a, b in zip(alone, leaked, strict=True))


def test_a_seed_in_training_learns_though_nobody_hears_it() -> None:
    torch.manual_seed(0)
    host = Host()
    bed, optimizer = make_bed(host)
    bed.apply(command(CommandKind.GERMINATE), moment(0))
    slot = bed.slots["mix"]
    assert slot.seed is not None
    before = {name: value.clone() for name, value in slot.seed.state_dict().items()}
    for x, y in batches(4):
        optimizer.zero_grad()
        F.cross_entropy(host(x), y).backward()
        optimizer.step()
    after = slot.seed.state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("name", ["nan", "exploding"])
def test_gradients_that_are_not_finite_are_dropped_and_counted(name: str) -> None:
    torch.manual_seed(0)
    host = Host()
    bed, optimizer = make_bed(host)
    bed.apply(command(CommandKind.GERMINATE, blueprint=name), moment(0))
    for x, y in batches(3):
        optimizer.zero_grad()
        F.cross_entropy(host(x), y).backward()
        bed.watch.after_backward()
        optimizer.step()
    slot = bed.slots["mix"]
    assert slot.seed is not None
    assert bed.watch.evidence["mix"].dropped.total() == 3
    assert all(torch.isfinite(p).all() for p in slot.seed.parameters())


def test_straight_through_bounds_the_output_of_the_seed() -> None:
    """Gradient descent on what the seed receives ends at r |h| along the gradient, not beyond."""
    torch.manual_seed(0)
    host, weight = torch.randn(16, 4), torch.randn(16, 4)
    seed = torch.zeros(16, 4, requires_grad=True)
    for _ in range(400):
        out = straight_through(host, seed, trust_radius=0.2)
        (gradient,) = torch.autograd.grad((out * weight).sum(), seed)
        seed = (seed - 0.05 * gradient).detach().requires_grad_(True)
    expected = -0.2 * host.norm() * weight / weight.norm()
    torch.testing.assert_close(seed.detach(), expected, rtol=1e-3, atol=1e-4)


def test_straight_through_survives_in_place_work_on_its_result() -> None:
    host = torch.randn(3, 4, requires_grad=True)
    seed = torch.full((3, 4), float("nan"), requires_grad=True)
    inner = host * 2
    out = straight_through(inner, seed, trust_radius=0.1)
    assert torch.equal(out, inner)
    torch.relu_(out).sum().backward()
    assert host.grad is not None
    assert torch.equal(host.grad, 2.0 * (host > 0))


@pytest.mark.parametrize(
    "lay",
    [
        lambda t: t[..., ::2],
        lambda t: t.chunk(2, -1)[1],
        lambda t: t.transpose(0, 1),
        lambda t: t[..., :1].expand(-1, -1, 5),
        lambda t: t[:0],
    ],
)
def test_straight_through_keeps_the_layout_that_the_host_may_ask_for(
    lay: Callable[[Tensor], Tensor],
) -> None:
    host = lay(torch.randn(3, 4, 10))
    out = straight_through(host, host.clone().requires_grad_(), trust_radius=0.1)
    assert torch.equal(out, host)
    assert out.data_ptr() != host.data_ptr() or not host.numel()
    if 0 not in host.stride():
        assert out.stride() == host.stride()
        assert out.is_contiguous() == host.is_contiguous()


def test_the_seed_sees_what_the_host_saw_before_working_in_place() -> None:
    """A module that overwrites its input must not change what a parallel seed reads."""

    class Overwrites(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(torch.relu_(x))

    class Reader(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = Overwrites()

        def forward(self, x: Tensor) -> Tensor:
            return self.mix(x * 1.0)

    host = Reader()
    bed, _ = make_bed(host)
    slot = bed.slots["mix"]
    assert slot.record.mutates_input
    bed.apply(command(CommandKind.GERMINATE, blueprint="parallel"), moment(0))
    seen: list[Tensor] = []
    assert slot.seed is not None
    slot.seed.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    x = torch.randn(4, 1, 8, 8)
    host(x)
    assert torch.equal(seen[0], x)
