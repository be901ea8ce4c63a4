"""Compiled code runs where it is called as it was compiled for; only what was signed is opened."""

import copy
import logging
import os
import pickle
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from small_recipes import IN, MAPS, OUT, ROWS, mlp, name_of
from torch import Tensor, nn

from esper_lightning.kasmina import FlopCount
from esper_lightning.leyline import Signer
from esper_lightning.tezzeret import Compiled, Outcome, Recipe, Stock, Tally, stock
from esper_lightning.tezzeret.bundle import CODE, LIBRARIES
from esper_lightning.tezzeret.outcome import KIND
from esper_lightning.urza import Artifact, Library

COMPILED = Outcome(is_compiled=True, reason="1.50 times as fast as eager", speedup=1.5)
EAGER = Outcome(is_compiled=False, reason="0.80 times as fast as eager, 1.05 is asked")
PARTS = {CODE: b"the code " * 100, LIBRARIES: b"the libraries " * 100}


class Function:
    """Stands in for loaded code: eager, and counts."""

    def __init__(self, guard: Callable[[Any, Tensor], bool] = lambda branch, x: True) -> None:
        self.guard_check = guard
        self.calls = 0

    def fn(self, branch: nn.Module, x: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = branch(x)
        return out


class Case:
    """A branch, its compiled code and the count of fallbacks."""

    def __init__(self, function: Function | None = None, **asked: Any) -> None:
        self.asked = mlp(**asked)
        self.function = function or Function()
        self.tally = Tally()
        self.compiled = Compiled(self.function, self.asked, self.tally)
        self.branch = self.asked.build()

    def runs(self, x: Tensor | None = None) -> bool:
        """Whether compiled code ran; in either case the output must be that of the branch."""
        x = self.asked.input() if x is None else x
        calls, fallbacks = self.function.calls, self.tally.fallbacks
        torch.testing.assert_close(self.compiled(self.branch, x), self.branch(x))
        ran = (self.function.calls - calls, self.tally.fallbacks - fallbacks)
        assert ran in ((1, 0), (0, 1))
        return ran == (1, 0)


# How it is called


def test_it_runs_when_called_as_it_was_compiled_for() -> None:
    case = Case()
    assert case.runs()
    assert case.runs(case.asked.input(seed=3))
    case.branch = case.asked.build()
    assert case.runs()


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(ROWS - 1, IN, requires_grad=True),
        torch.randn(ROWS + 1, IN, requires_grad=True),
        torch.randn(IN, ROWS).T.requires_grad_(),
        torch.randn(ROWS, 2 * IN)[:, ::2].requires_grad_(),
        torch.randn(ROWS, IN),
    ],
    ids=["fewer rows", "more rows", "other strides", "a view", "no gradient"],
)
def test_another_input_runs_eager(x: Tensor) -> None:
    case = Case()
    assert not case.runs(x)
    assert case.runs()


def test_another_type_runs_eager() -> None:
    case = Case()
    case.branch = case.branch.double()
    assert not case.runs(case.asked.input().detach().double().requires_grad_())


def test_another_memory_format_runs_eager() -> None:
    case = Case(blueprint="parallel_conv", shape=MAPS, parameters={}, channels_last=True)
    assert case.runs()
    assert not case.runs(case.asked.input().detach().contiguous().requires_grad_())


def test_a_gradient_that_was_not_compiled_for_runs_eager() -> None:
    case = Case(input_requires_grad=False)
    assert case.runs()
    assert not case.runs(case.asked.input().requires_grad_())


def test_without_gradients_it_runs_eager() -> None:
    case = Case()
    with torch.no_grad():
        assert not case.runs()
    with torch.inference_mode():
        assert not case.runs()
    assert case.runs()


def test_under_autocast_it_runs_eager() -> None:
    case = Case()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not case.runs()
        with torch.autocast("cpu", enabled=False):
            assert case.runs()


def register(module: nn.Module, kind: str) -> Any:
    told: dict[str, Any] = {"register_full_backward_pre_hook": lambda module, gradient: None}
    return getattr(module, kind)(told.get(kind, lambda *_: None))


@pytest.mark.parametrize("inside", ["", "project"])
@pytest.mark.parametrize(
    "kind",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
def test_hooks_are_called_for_it_runs_eager(kind: str, inside: str) -> None:
    case = Case()
    hook = register(case.branch.get_submodule(inside), kind)
    assert not case.runs()
    hook.remove()
    assert case.runs()


def test_operations_are_counted_for_it_runs_eager() -> None:
    case = Case()
    with FlopCount() as count:
        assert not case.runs()
    assert count.total == 2 * 2 * ROWS * (IN * 2 * OUT + 2 * OUT * OUT)
    assert case.runs()


def test_what_its_guards_do_not_know_runs_eager() -> None:
    case = Case(Function(lambda branch, x: all(p.requires_grad for p in branch.parameters())))
    assert case.runs()
    case.branch.expand.weight.requires_grad_(False)
    assert not case.runs()
    case.branch.expand.weight.requires_grad_(True)
    assert case.runs()


# What is at hand


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """What was opened; nothing really is."""
    opened: list[tuple[bytes, bytes]] = []

    def load(code: bytes, libraries: bytes) -> Function:
        opened.append((code, libraries))
        return Function()

    monkeypatch.setattr(stock, "load", load)
    return opened


@pytest.fixture
def no_warning(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.WARNING):
        yield
    assert not caplog.records


def put(library: Library, asked: Recipe, outcome: Outcome = COMPILED, **parts: bytes) -> Artifact:
    told = (parts or PARTS) if outcome.is_compiled else {}
    return library.put(KIND, name_of(asked), told, about=msgspec.to_builtins(outcome))


@pytest.mark.usefixtures("no_warning")
def test_what_nothing_is_known_of(library: Library, loaded: list[Any]) -> None:
    shelf = Stock(library)
    assert not shelf.prefetch(mlp())
    assert shelf.take(mlp()) is None
    assert shelf.tally == Tally(unknown=1)
    assert shelf.tally.hit_rate == 0.0


@pytest.mark.usefixtures("no_warning")
def test_what_stays_eager(library: Library, loaded: list[Any]) -> None:
    put(library, mlp(), EAGER)
    shelf = Stock(library)
    assert shelf.prefetch(mlp())
    assert shelf.take(mlp()) is None
    assert (shelf.tally.eager, shelf.tally.unknown, shelf.tally.hit_rate) == (1, 0, 1.0)
    assert loaded == []


@pytest.mark.usefixtures("no_warning")
def test_what_is_compiled(library: Library, loaded: list[Any]) -> None:
    put(library, mlp())
    shelf = Stock(library)
    assert shelf.prefetch(mlp())
    assert shelf.prefetch(mlp())
    assert loaded == [(PARTS[CODE], PARTS[LIBRARIES])], "once"
    code = shelf.take(mlp())
    assert isinstance(code, Compiled)
    assert shelf.take(mlp()) is code
    assert shelf.tally.compiled == 2
    assert len(shelf.tally.lookup_ms) == 1
    branch, x = mlp().build(), mlp().input()
    assert torch.equal(code(branch, x), branch(x))
    with torch.no_grad():
        code(branch, x)
    assert shelf.tally.fallbacks == 1


def test_what_is_taken_was_looked_up_before(library: Library, loaded: list[Any]) -> None:
    put(library, mlp())
    shelf = Stock(library)
    assert shelf.take(mlp()) is None
    assert loaded == []
    assert shelf.prefetch(mlp())
    assert shelf.take(mlp()) is not None
    assert shelf.tally.hit_rate == 0.5


def test_what_is_new_in_the_library_is_found(library: Library, loaded: list[Any]) -> None:
    shelf = Stock(library)
    assert not shelf.prefetch(mlp())
    put(library, mlp())
    assert shelf.prefetch(mlp())


def test_of_other_threads_nothing_is_known(library: Library, loaded: list[Any]) -> None:
    put(library, mlp())
    torch.set_num_threads(2)
    assert not Stock(library).prefetch(mlp())


# What must not be opened

OPENED: list[str] = []


class Hostile:
    """Opening it runs code."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return OPENED.append, ("opened",)


def file_of(library: Library, artifact: Artifact, part: str) -> Path:
    sha256 = artifact.parts[part].sha256
    return library.root / "content" / sha256[:2] / sha256


def flipped(code: Path, libraries: Path) -> None:
    data = bytearray(code.read_bytes())
    data[len(data) // 2] ^= 1
    code.write_bytes(data)


def truncated(code: Path, libraries: Path) -> None:
    os.truncate(libraries, 10)


def swapped(code: Path, libraries: Path) -> None:
    one, other = code.read_bytes(), libraries.read_bytes()
    code.write_bytes(other)
    libraries.write_bytes(one)


def missing(code: Path, libraries: Path) -> None:
    libraries.unlink()


def hostile(code: Path, libraries: Path) -> None:
    code.write_bytes(pickle.dumps(Hostile()).ljust(len(PARTS[CODE]), b"\0"))


@pytest.mark.parametrize(
    "damage", [flipped, truncated, swapped, missing, hostile], ids=lambda damage: damage.__name__
)
def test_what_was_changed_on_disk_is_never_opened(
    library: Library, caplog: pytest.LogCaptureFixture, damage: Callable[[Path, Path], None]
) -> None:
    artifact = put(library, mlp())
    damage(*(file_of(library, artifact, part) for part in (CODE, LIBRARIES)))
    never_opened(library, caplog, "is damaged")


def test_what_somebody_else_signed_is_never_opened(
    library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    with Library(library.root, signer=Signer(b"the key of somebody else")) as other:
        put(other, mlp(), **{CODE: pickle.dumps(Hostile()), LIBRARIES: b""})
    never_opened(library, caplog, "not signed with the key of this installation")


def test_what_was_signed_for_another_recipe_is_never_opened(
    library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    put(library, mlp(batch=9), **{CODE: pickle.dumps(Hostile()), LIBRARIES: b""})
    with sqlite3.connect(library.root / "library.sqlite") as connection:
        rename = "UPDATE artifacts SET name = ?"
        assert connection.execute(rename, [name_of(mlp())]).rowcount == 1
    connection.close()
    never_opened(library, caplog, "stands where that of")


@pytest.mark.parametrize(
    ("parts", "about", "message"),
    [
        ({}, COMPILED, "has no part"),
        ({CODE: b"garbage", LIBRARIES: b"garbage"}, COMPILED, "cannot be unpacked"),
        (PARTS, {"verdict": "fast"}, "is_compiled"),
    ],
    ids=["no parts", "garbage", "another release"],
)
def test_what_was_signed_and_is_nothing_of_use(
    library: Library,
    caplog: pytest.LogCaptureFixture,
    parts: dict[str, bytes],
    about: Any,
    message: str,
) -> None:
    library.put(KIND, name_of(mlp()), parts, about=msgspec.to_builtins(about))
    never_opened(library, caplog, message)


def never_opened(library: Library, caplog: pytest.LogCaptureFixture, message: str) -> None:
    """It counts as damaged, the branch runs eager, and a warning says why."""
    shelf = Stock(library)
    with caplog.at_level(logging.WARNING):
        assert not shelf.prefetch(mlp())
    assert OPENED == []
    told = [r.getMessage() for r in caplog.records if r.name == "esper_lightning.tezzeret.stock"]
    assert len(told) == 1
    assert told[0].startswith("parallel_mlp stays eager: ")
    assert message in told[0]
    assert shelf.take(mlp()) is None
    assert (shelf.tally.damaged, shelf.tally.unknown, shelf.tally.compiled) == (1, 1, 0)


def test_an_older_version_that_is_whole_is_used(library: Library, loaded: list[Any]) -> None:
    put(library, mlp())
    newer = put(library, mlp(), **{CODE: b"newer", LIBRARIES: PARTS[LIBRARIES]})
    file_of(library, newer, CODE).write_bytes(b"wrong")
    shelf = Stock(library)
    assert not shelf.prefetch(mlp())
    assert shelf.prefetch(mlp())
    assert loaded == [(PARTS[CODE], PARTS[LIBRARIES])]


def test_a_tally_is_plain_numbers() -> None:
    tally = Tally(compiled=1, lookup_ms=[1.5])
    assert msgspec.json.decode(msgspec.json.encode(tally), type=Tally) == tally
    assert copy.deepcopy(tally) == tally
    assert Tally().lookup_ms is not Tally().lookup_ms
