"""A second pass leaves no trace."""

import random

import numpy as np
import torch
import torch.nn.functional as F
from seedlings import Host, batches, command, make_bed, moment
from torch import nn

from esper_lightning.kasmina.passes import frozen_but, second_pass
from esper_lightning.kasmina.slot import Pass, SeedSlot
from esper_lightning.leyline import CommandKind


def planted() -> tuple[Host, dict[str, SeedSlot]]:
    torch.manual_seed(0)
    host = Host()
    bed, _ = make_bed(host)
    bed.apply(command(CommandKind.GERMINATE, blueprint="polluter"), moment(0))
    return host, bed.slots


def test_buffers_gradients_generators_and_streams_stand_as_before() -> None:
    host, slots = planted()
    x, y = batches(1)[0]
    F.cross_entropy(host(x), y).backward()
    buffers = dict(host.named_buffers())
    held = {name: (buffer, buffer.clone(), buffer._version) for name, buffer in buffers.items()}
    gradients = {name: p.grad.clone() for name, p in host.named_parameters() if p.grad is not None}
    generators = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    stream = slots["mix"].random.state()
    with second_pass(host, slots, Pass.MAIN):
        loss = F.cross_entropy(host(x), y)
        torch.autograd.grad(loss, list(host.parameters()), allow_unused=True)
        changed = [name for name, b in host.named_buffers() if not torch.equal(b, held[name][1])]
        assert changed, "BatchNorm must have moved its copy"
        assert not torch.equal(torch.get_rng_state(), generators[0])
    for name, buffer in host.named_buffers():
        kept, value, version = held[name]
        assert buffer is kept
        assert torch.equal(buffer, value)
        assert buffer._version == version
    after = {name: p.grad for name, p in host.named_parameters() if p.grad is not None}
    assert after.keys() == gradients.keys()
    assert all(torch.equal(after[name], gradients[name]) for name in gradients)
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert random.getstate() == generators[1]
    assert np.random.get_state()[1].tolist() == generators[2]
    assert slots["mix"].random.state() == stream
    assert slots["mix"].passing is Pass.MAIN


def test_a_pass_that_fails_leaves_no_trace_either() -> None:
    host, slots = planted()
    before = dict(host.named_buffers())
    state = torch.get_rng_state()
    try:
        with second_pass(host, slots, Pass.SHADOW):
            host(batches(1)[0][0])
            raise KeyError("the loss failed")
    except KeyError:
        pass
    assert all(buffer is before[name] for name, buffer in host.named_buffers())
    assert torch.equal(torch.get_rng_state(), state)
    assert slots["mix"].passing is Pass.MAIN


def test_a_buffer_of_two_modules_stays_one() -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
            self.b.running_mean = self.a.running_mean

    twins = Twins()
    with second_pass(twins, {}, Pass.MAIN):
        assert twins.a.running_mean is twins.b.running_mean
    assert twins.a.running_mean is twins.b.running_mean


def test_only_the_kept_parameters_need_gradients() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    network[2].requires_grad_(False)
    with frozen_but(network, network[1].parameters()):
        needing = [p.requires_grad for p in network.parameters()]
    assert needing == [False, False, True, True, False, False]
    assert [p.requires_grad for p in network.parameters()] == [True] * 4 + [False] * 2
