"""Real children: what they compile is what the branch is, and none of them stays."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_recipes import alive, compiles, events, journal, mlp, name_of, own, wait_until
from torch import Tensor, nn

from esper_lightning.kasmina import FlopCount
from esper_lightning.leyline import encode
from esper_lightning.tezzeret import Compiled, Outcome, Stock, Workshop, workshop
from esper_lightning.tezzeret.examine import Examination
from esper_lightning.tezzeret.outcome import KIND
from esper_lightning.urza import Library

pytestmark = [
    pytest.mark.slow,
    # Of torch, when it loads what its compiler made.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SECRET = "the key of these tests"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stock, Outcome]]:
    """A ``parallel_mlp`` that was really compiled, whatever its speed.

    Workers of pytest share the library, so that one of them compiles and the others wait.
    """
    torch.set_num_threads(1)
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESPER_LEYLINE_SECRET", SECRET)
        with Library(shared / "compiled_parallel_mlp") as library:
            with Workshop(library, min_speedup=0.0) as shop:
                outcome = shop.make(mlp())
            shelf = Stock(library)
            assert shelf.prefetch(mlp()), outcome.reason
            yield shelf, outcome


@pytest.fixture
def code(made: tuple[Stock, Outcome]) -> Compiled:
    found = made[0].take(mlp())
    assert found is not None, made[1].reason
    return found


@compiles
def test_a_real_artifact_tells_its_errors_and_times(made: tuple[Stock, Outcome]) -> None:
    outcome = made[1]
    assert outcome.is_compiled
    assert outcome.reason.endswith("times as fast as eager")
    assert set(outcome.errors) >= {"output", "gradient of the input", "gradient of expand.weight"}
    assert max(outcome.errors.values()) < 1e-4
    assert outcome.speedup is not None
    assert outcome.speedup > 0.01
    assert outcome.seconds > 1
    (line,) = [line for line in journal(made[0].library).lines() if line.event == "decided"]
    assert line.key == name_of(mlp())


def close(one: Tensor, other: Tensor) -> None:
    one, other = one.detach(), other.detach()
    assert float((one - other).abs().max()) <= 1e-5 * float(other.abs().max())


def pair() -> tuple[nn.Module, nn.Module]:
    """Two branches with the same weights, none of them zero."""
    branch, twin = mlp().build(), mlp().build()
    for parameter in branch.parameters():
        nn.init.normal_(parameter, std=0.3)
    twin.load_state_dict(branch.state_dict())
    return branch, twin


@compiles
def test_its_output_and_gradients_are_those_of_eager(code: Compiled) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        branch, twin = pair()
        inputs = [mlp().input(seed=seed) for _ in range(2)]
        outputs = code(branch, inputs[0]), twin(inputs[1])
        close(*outputs)
        for output in outputs:
            output.square().sum().backward()
        assert inputs[0].grad is not None
        assert inputs[1].grad is not None
        close(inputs[0].grad, inputs[1].grad)
        for one, other in zip(branch.parameters(), twin.parameters(), strict=True):
            assert one.grad is not None
            assert other.grad is not None
            close(one.grad, other.grad)
    assert code._tally.fallbacks == 0


@compiles
def test_it_trains_as_eager_does(code: Compiled) -> None:
    branch, twin = pair()
    optimizers = [torch.optim.AdamW(each.parameters(), lr=0.01) for each in (branch, twin)]
    before = [parameter.detach().clone() for parameter in branch.parameters()]
    for step in range(2):
        x = mlp().input(seed=step)
        for output, optimizer in zip((code(branch, x), twin(x)), optimizers, strict=True):
            optimizer.zero_grad()
            output.square().sum().backward()
            optimizer.step()
    for one, other, was in zip(branch.parameters(), twin.parameters(), before, strict=True):
        assert not torch.equal(one, was)
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    x = mlp().input(seed=9)
    torch.testing.assert_close(code(branch, x), twin(x), rtol=1e-3, atol=1e-5)


@compiles
def test_a_graph_may_be_kept_and_gradients_accumulate(code: Compiled) -> None:
    branch, twin = pair()
    x = mlp().input()
    for output in (code(branch, x), twin(x)):
        loss = output.square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
    for one, other in zip(branch.parameters(), twin.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        close(one.grad, other.grad)


@compiles
def test_its_guards_know_what_it_was_compiled_for(code: Compiled) -> None:
    branch, twin = pair()
    x = mlp().input()
    before = code._tally.fallbacks
    branch.expand.weight.requires_grad_(False)  # type: ignore[union-attr]
    code(branch, x).sum().backward()
    assert branch.expand.weight.grad is None  # type: ignore[union-attr]
    other = mlp(parameters={"expansion": 3.0}).build()
    assert torch.equal(code(other, x), other(x))
    with torch.no_grad():
        code(twin, x)
    with FlopCount() as count:
        code(twin, x)
    assert count.total > 0
    assert code._tally.fallbacks == before + 4


@compiles
def test_its_libraries_lie_where_only_this_user_reads(made: tuple[Stock, Outcome]) -> None:
    opened = Path("/proc/self/maps")
    if not opened.is_file():
        pytest.skip("needs /proc")
    parts = [line.split()[-1] for line in opened.read_text().splitlines() if "/tezzeret-" in line]
    assert parts, "its machine code is in use"
    folder = next(parent for parent in Path(parts[0]).parents if "tezzeret-" in parent.name)
    assert folder.stat().st_mode & 0o077 == 0


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Process groups of all children."""
    found: list[int] = []
    start = Workshop._start

    def noting(self: Workshop, *args: Any) -> Any:
        child = start(self, *args)
        found.append(child.pid)
        return child

    monkeypatch.setattr(Workshop, "_start", noting)
    monkeypatch.setattr(workshop, "is_supported", lambda: True)
    return found


@pytest.mark.parametrize(
    ("init", "forward", "reason"),
    [
        ("pass", "raise RuntimeError('no such luck')", "no such luck"),
        ("import os; os._exit(7)", "return x", "make ended with status 7: silently"),
        ("import os; os._exit(0)", "return x", "make ended with status 0: silently"),
    ],
    ids=["raises", "exits", "exits as if all were well"],
)
def test_a_branch_that_fails_stays_eager(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    library: Library,
    groups: list[int],
    init: str,
    forward: str,
    reason: str,
) -> None:
    monkeypatch.setattr(workshop, "MAX_TRIES", 1)
    asked = own(tmp_path, monkeypatch, module="my_failing", init=init, forward=forward)
    with Workshop(library) as shop:
        outcome = shop.make(asked)
    assert not outcome.is_compiled
    assert reason in outcome.reason
    assert not any(alive(group) for group in groups)


SLEEPING = "import subprocess; open({!r}, 'w').close(); subprocess.run(['sleep', '1000'])"


def test_a_branch_that_takes_too_long_leaves_no_process(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    library: Library,
    groups: list[int],
) -> None:
    monkeypatch.setattr(workshop, "MAX_TRIES", 1)
    begun = tmp_path / "begun"
    asked = own(tmp_path, monkeypatch, module="my_sleeping", init=SLEEPING.format(str(begun)))
    wait = subprocess.Popen.wait

    def until_it_sleeps(self: Any, timeout: float | None = None) -> int:
        if timeout is None:
            return wait(self)
        wait_until(begun.exists, seconds=120)
        wait_until(lambda: len(alive(self.pid)) >= 3)  # itself, its compiler and who watches
        return wait(self, 0.1)

    monkeypatch.setattr(subprocess.Popen, "wait", until_it_sleeps)
    with Workshop(library, timeout=60) as shop:
        assert shop.make(asked).reason == "it failed: make took more than 60 s"
    assert len(groups) == 1
    wait_until(lambda: not alive(groups[0]))


PARENT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from small_recipes import mlp, row, VECTOR, ROWS
from esper_lightning.tezzeret import Workshop, recipe_for, workshop
from esper_lightning.urza import Library
import my_interrupted
workshop.is_supported = lambda: True
start = Workshop._start
def noting(self, *args):
    child = start(self, *args)
    print(child.pid, flush=True)
    return child
Workshop._start = noting
with Workshop(Library(sys.argv[1])) as shop:
    shop.make(recipe_for(row(my_interrupted.Own), VECTOR, batch=ROWS))
"""


def test_a_parent_that_is_killed_takes_its_child_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Library
) -> None:
    begun = tmp_path / "begun"
    asked = own(tmp_path, monkeypatch, module="my_interrupted", init=SLEEPING.format(str(begun)))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TMPDIR": str(tmp_path),  # in which it leaves what it was at
    }
    command = [sys.executable, "-c", PARENT, str(library.root)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            wait_until(begun.exists, seconds=120)
            assert len(alive(child)) >= 3
        finally:
            parent.send_signal(signal.SIGKILL)
            parent.wait()
    wait_until(lambda: not alive(child), seconds=10)
    assert library.get(KIND, name_of(asked)) is None
    examined = encode(Examination(wrong="", errors={}, speedup=1.5))
    monkeypatch.setattr(workshop, "is_supported", lambda: True)
    monkeypatch.setattr(
        Workshop,
        "_run",
        lambda self, step, *_: [b"code", b"libraries"] if step == "make" else [examined],
    )
    with Workshop(library) as shop:
        assert shop.make(asked).is_compiled
    assert events(library) == ["begun", "begun", "ended", "decided"]
