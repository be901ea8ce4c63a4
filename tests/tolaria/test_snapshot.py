"""Going back: weights, topology, optimiser state and seeds' generators are one."""

import copy
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from seedlings import Host, batches, command, make_bed, moment
from torch import Tensor, nn

from esper_lightning.kasmina import LifecycleRules, SeedBed
from esper_lightning.kasmina.rules import GateRules
from esper_lightning.leyline import BlendSchedule, CommandKind, Incubation, InvalidArgument
from esper_lightning.tolaria import Snapshot, is_finite

RULES = LifecycleRules(blend=BlendSchedule(num_steps=8), gates=GateRules(price_per_parameter=0.0))
STEPS = 3


class Run:
    """A bed in training, with the clocks of a Trainer."""

    def __init__(
        self, incubation: Incubation = Incubation.DIRECT, host: nn.Module | None = None
    ) -> None:
        torch.manual_seed(0)
        self.bed, self.optimizer = make_bed(host or Host(), rules=RULES, incubation=incubation)
        self.step, self.epoch = 0, -1

    def train(self, bed: SeedBed) -> None:
        bed.watch.start_epoch()
        for number, (x, y) in enumerate(batches(STEPS, seed=5)):
            bed.watch.before_step(self.step)
            self.optimizer.zero_grad()
            loss = F.cross_entropy(bed.network(x), y)
            loss.backward()
            bed.watch.after_backward()
            bed.watch.before_optimizer_step(number)
            self.optimizer.step()
            self.step += 1
            bed.watch.after_step(loss.detach())

    def boundary(self, kind: CommandKind | None = None) -> None:
        self.train(self.bed)
        self.epoch += 1
        now = moment(self.epoch, objective=0.9**self.epoch)
        self.bed.close_epoch(now)
        if kind is not None:
            self.bed.apply(command(kind), now)

    def snapshot(self) -> Snapshot:
        return Snapshot.take(self.bed.network, self.optimizer, epoch=self.epoch, step=self.step)

    def restore(self, snapshot: Snapshot) -> None:
        snapshot.restore(self.bed.network, self.bed, self.optimizer, step=self.step)


def state_of(run: Run) -> list[Any]:
    """Bitwise comparable: weights without the slots' records, and the optimiser's state place."""
    weights = [
        (name, value.tolist())
        for name, value in run.bed.network.state_dict().items()
        if not name.endswith("_extra_state")
    ]
    moments = [
        [
            {k: v.tolist() if isinstance(v, Tensor) else v for k, v in state.items()}
            for state in (run.optimizer.state.get(p, {}) for p in group["params"])
        ]
        for group in run.optimizer.param_groups
    ]
    slot = run.bed.slots["mix"]
    return [weights, moments, slot.record.stage, len(slot.fossils), slot.seed is None]


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([], id="nothing"),
        pytest.param([CommandKind.GERMINATE], id="a graft"),
        pytest.param([CommandKind.GERMINATE, None, CommandKind.FOSSILIZE], id="a fossilisation"),
        pytest.param([CommandKind.GERMINATE, None, CommandKind.CULL], id="a cull"),
        pytest.param(
            [CommandKind.GERMINATE, None, CommandKind.FOSSILIZE, None, CommandKind.PRUNE],
            id="a pruning",
        ),
    ],
)
@pytest.mark.parametrize("since", [1, 2, 3])
def test_a_rollback_goes_back_across_what_grew(
    events: list[CommandKind | None], since: int
) -> None:
    run = Run()
    run.boundary()
    taken, states = [run.snapshot()], [state_of(run)]
    for kind in [*events, None]:
        run.boundary(kind)
        taken.append(run.snapshot())
        states.append(state_of(run))
    place = max(len(taken) - 1 - since, 0)
    run.restore(taken[place])
    assert state_of(run) == states[place]
    held = [p for group in run.optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in run.bed.network.parameters() if p.requires_grad}
    assert set(run.optimizer.state) <= set(held)


@pytest.mark.parametrize("incubation", [Incubation.STRAIGHT_THROUGH, Incubation.DIRECT])
def test_what_follows_a_rollback_is_what_followed_the_snapshot(incubation: Incubation) -> None:
    """Clocks in steps are moved, so that the same training gives the same network."""
    run = Run(incubation)
    run.boundary()
    run.boundary(CommandKind.GERMINATE)
    run.boundary()
    snapshot = run.snapshot()
    random = torch.get_rng_state()
    run.train(run.bed)
    after = state_of(run)
    run.restore(snapshot)
    torch.set_rng_state(random)  # the global one is not rewound by a rollback
    run.train(run.bed)
    assert state_of(run) == after


def test_a_snapshot_does_not_change_with_the_network() -> None:
    run = Run()
    run.boundary(None)
    snapshot, before = run.snapshot(), state_of(run)
    run.boundary(CommandKind.GERMINATE)
    run.boundary()
    run.restore(snapshot)
    run.boundary()
    run.restore(snapshot)
    assert state_of(run) == before


def test_learning_rates_are_not_rewound() -> None:
    run = Run()
    run.boundary()
    snapshot = run.snapshot()
    for group in run.optimizer.param_groups:
        group["lr"] = 0.125
    run.restore(snapshot)
    assert {group["lr"] for group in run.optimizer.param_groups} == {0.125}


def test_a_checkpoint_without_an_optimiser_is_refused() -> None:
    taken = Run().snapshot()
    with pytest.raises(InvalidArgument, match="0 optimisers.*save_weights_only=False"):
        Snapshot.read({"epoch": 1, "global_step": 2, "state_dict": {}}, epoch=1, beside=taken)


class Secretive(Host):
    """Tells of its head only, keeps a buffer to itself, and one that is not always set."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(3), persistent=False)
        self.register_buffer("seen", None)
        self.count = 0

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        held = super().state_dict(*args, **kwargs)
        return {name: value for name, value in held.items() if name.startswith("head")}

    def get_extra_state(self) -> int:
        return self.count

    def set_extra_state(self, state: int) -> None:
        self.count = state


def test_a_snapshot_holds_what_a_module_leaves_out_of_its_state_dict() -> None:
    run = Run(host=Secretive())
    host = run.bed.network
    run.boundary(CommandKind.GERMINATE)
    run.boundary()
    with torch.inference_mode():  # as in a validation step
        host.average = torch.ones(3)
    snapshot = run.snapshot()
    held = {name: p.detach().clone() for name, p in host.named_parameters()}
    host.count = 7
    host.seen = torch.ones(2)
    host.average = host.average * float("nan")
    run.boundary(CommandKind.FOSSILIZE)
    run.boundary()
    assert not is_finite(host)
    run.restore(snapshot)
    assert {name: p.tolist() for name, p in host.named_parameters()} == {
        name: value.tolist() for name, value in held.items()
    }
    assert host.average.tolist() == [1.0] * 3
    assert host.seen is None
    assert host.count == 0


def test_what_a_file_leaves_out_is_as_it_was_beside_it() -> None:
    run = Run(host=Secretive())
    run.boundary()
    taken = run.snapshot()
    run.boundary(CommandKind.GERMINATE)
    file = {
        "epoch": run.epoch,
        "global_step": run.step,
        "state_dict": run.bed.network.state_dict(),
        "optimizer_states": [run.optimizer.state_dict()],
    }
    head = run.bed.network.head.weight.tolist()
    read = Snapshot.read(copy.deepcopy(file), epoch=1, beside=taken)
    run.boundary()
    assert read.tensors["head.weight"].tolist() == head
    assert {n for n, v in read.tensors.items() if v is taken.tensors[n]} == {
        name for name in taken.tensors if not name.startswith("head")
    }


def test_a_snapshot_goes_through_a_file() -> None:
    run = Run()
    run.boundary(CommandKind.GERMINATE)
    run.boundary()
    saved = io.BytesIO()
    torch.save(run.snapshot().state_dict(), saved)
    states = state_of(run)
    run.boundary(CommandKind.CULL)
    run.boundary()
    saved.seek(0)
    run.restore(Snapshot(**torch.load(saved, weights_only=True)))
    assert state_of(run) == states


def test_finite_is_every_weight_and_buffer() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Flatten())
    assert is_finite(net)
    assert is_finite(nn.ReLU())
    buffer = net[1].running_var
    assert isinstance(buffer, Tensor)
    buffer[0] = float("inf")
    assert not is_finite(net)
    assert is_finite(net, without=[net[1]])
    buffer[0] = 1.0
    with torch.no_grad():
        net[0].weight[0, 0] = float("nan")
    assert not is_finite(net)


def test_branches_that_are_there_stay_and_none_is_used_twice() -> None:
    run = Run()
    run.boundary()
    run.boundary(CommandKind.GERMINATE)
    run.boundary()
    slot = run.bed.slots["mix"]
    seed, planted = slot.seed, run.snapshot()
    run.boundary(CommandKind.FOSSILIZE)
    run.boundary()
    run.bed.apply(command(CommandKind.GERMINATE), moment(run.epoch))
    both, states = run.snapshot(), state_of(run)
    assert slot.fossils[0] is seed
    run.restore(planted)
    assert slot.seed is not None
    assert len(slot.fossils) == 0
    run.restore(both)
    assert state_of(run) == states
    assert slot.fossils[0] is not slot.seed
    run.restore(both)
    assert state_of(run) == states
