"""Another way to run a branch is known beside it, and to nothing that is copied or saved."""

import copy
import gc
import io
import pickle
from weakref import ref

import torch
from seedlings import Host, command, make_bed, moment
from torch import Tensor, nn

from esper_lightning.kasmina import SeedSlot, faster, run_by
from esper_lightning.kasmina.faster import output_of
from esper_lightning.leyline import CommandKind, Incubation


class Doubled:
    """Runs a branch, and gives twice of it."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, branch: nn.Module, x: Tensor) -> Tensor:
        self.calls += 1
        return 2 * branch(x)


def grown() -> tuple[Host, SeedSlot]:
    """A host in which a seed takes part."""
    torch.manual_seed(0)
    host = Host()
    bed, _ = make_bed(host, incubation=Incubation.DIRECT)
    bed.apply(command(CommandKind.GERMINATE), moment(0))
    slot = bed.slots["mix"]
    assert slot.seed is not None
    nn.init.normal_(slot.seed.last.weight)  # type: ignore[union-attr, arg-type]
    return host.eval(), slot


def test_a_branch_runs_by_itself_until_it_is_told_otherwise() -> None:
    branch, x, run = nn.Linear(3, 3), torch.randn(2, 3), Doubled()
    assert torch.equal(output_of(branch, x), branch(x))
    run_by(branch, run)
    assert torch.equal(output_of(branch, x), 2 * branch(x))
    assert torch.equal(output_of(nn.Linear(3, 3), x), output_of(nn.Linear(3, 3), x)) is False
    run_by(branch, None)
    assert torch.equal(output_of(branch, x), branch(x))
    run_by(branch, None)
    assert run.calls == 1


def test_a_slot_runs_its_seed_that_way_and_the_host_with_it() -> None:
    host, slot = grown()
    x, run = torch.randn(4, 1, 8, 8), Doubled()
    before = host(x)
    assert slot.seed is not None
    run_by(slot.seed, run)
    assert not torch.equal(host(x), before)
    assert run.calls == 1
    run_by(slot.seed, None)
    assert torch.equal(host(x), before)


def test_copies_and_files_know_nothing_of_it() -> None:
    host, slot = grown()
    assert slot.seed is not None
    x, names = torch.randn(4, 1, 8, 8), [*slot.state_dict()]
    before = host(x)
    run_by(slot.seed, Doubled())
    assert [*slot.state_dict()] == names
    saved = io.BytesIO()
    torch.save(host, saved)
    saved.seek(0)
    for copied in (
        copy.deepcopy(host),
        pickle.loads(pickle.dumps(host)),
        torch.load(saved, weights_only=False),
    ):
        assert torch.equal(copied(x), before)
    assert b"Doubled" not in pickle.dumps(host)
    assert not torch.equal(host(x), before)


def test_it_goes_with_the_branch() -> None:
    branch, run = nn.Linear(3, 3), Doubled()
    before = len(faster._runs)
    run_by(branch, run)
    assert len(faster._runs) == before + 1
    watching, code = ref(branch), ref(run)
    del branch, run
    gc.collect()
    assert watching() is None
    assert code() is None
    assert len(faster._runs) == before


def test_it_goes_with_a_seed_that_is_culled() -> None:
    host, slot = grown()
    assert slot.seed is not None
    run_by(slot.seed, Doubled())
    watching = ref(slot.seed)
    slot.seed = None
    gc.collect()
    assert watching() is None
    assert torch.isfinite(host(torch.randn(4, 1, 8, 8))).all()
