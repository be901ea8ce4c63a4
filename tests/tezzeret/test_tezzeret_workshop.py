"""Every recipe comes to an outcome that is kept, whatever its child does."""

import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from small_recipes import MANY, events, journal, mlp, name_of, wait_until

from esper_lightning.leyline import InvalidArgument, Signer, encode
from esper_lightning.tezzeret import NotMade, Outcome, Recipe, Workshop, workshop
from esper_lightning.tezzeret.bundle import CODE, LIBRARIES
from esper_lightning.tezzeret.examine import Examination
from esper_lightning.tezzeret.journal import MAX_INTERRUPTIONS, Line
from esper_lightning.tezzeret.outcome import KIND, of_artifact
from esper_lightning.urza import Library, LibraryFull, LibraryReadOnly

PARTS = {CODE: b"code", LIBRARIES: b"libraries"}
GOOD = Examination(wrong="", errors={"output": 1e-7}, speedup=1.5, eager_ms=3.0, compiled_ms=2.0)
SLOW = msgspec.structs.replace(GOOD, speedup=1.04, compiled_ms=2.9)
WRONG = Examination(wrong="output is off by 1.0e-02 of its size", errors={"output": 0.01})


class Steps:
    """Stands in for children: does for each what it is told to."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.examined: bytes = encode(GOOD)
        self.failing: list[str] = []
        self.during: Callable[[], None] = lambda: None
        self.running = self.most_running = 0
        self._lock = threading.Lock()

    def __call__(self, step: str, folder: Path, name: str) -> list[bytes]:
        with self._lock:
            self.told.append(step)
            self.running += 1
            self.most_running = max(self.running, self.most_running)
        try:
            assert (folder / "recipe.json").is_file()
            assert (folder / "cache").is_dir()
            self.during()
            if self.failing:
                raise workshop._Failed(self.failing.pop(0))
            return [*PARTS.values()] if step == "make" else [self.examined]
        finally:
            with self._lock:
                self.running -= 1


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    made = Steps()
    monkeypatch.setattr(workshop, "is_supported", lambda: True)
    monkeypatch.setattr(Workshop, "_run", lambda _, *asked: made(*asked))
    return made


@pytest.fixture
def shop(library: Library, steps: Steps) -> Iterator[Workshop]:
    with Workshop(library) as opened:
        yield opened


def kept(library: Library, asked: Recipe | None = None) -> Outcome | None:
    artifact = library.get(KIND, name_of(asked or mlp()))
    return None if artifact is None else of_artifact(artifact)


# What an outcome is


def test_what_is_faster_is_kept_with_its_code(shop: Workshop, library: Library) -> None:
    outcome = shop.make(mlp())
    assert outcome.is_compiled
    assert outcome.reason == "1.50 times as fast as eager"
    assert (outcome.speedup, outcome.eager_ms, outcome.compiled_ms) == (1.5, 3.0, 2.0)
    assert outcome.errors == {"output": 1e-7}
    assert outcome.seconds >= 0
    assert kept(library) == outcome
    artifact = library.get(KIND, name_of(mlp()))
    assert artifact is not None
    assert {part: artifact.read(part) for part in artifact.parts} == PARTS
    assert msgspec.convert(artifact.about["recipe"], Recipe) == mlp()
    assert artifact.about["machine"]["threads"] == torch.get_num_threads()
    assert events(library) == ["begun", "ended", "decided"]


def test_what_is_too_slow_is_eager_with_its_figures(
    shop: Workshop, library: Library, steps: Steps
) -> None:
    steps.examined = encode(SLOW)
    outcome = shop.make(mlp())
    assert not outcome.is_compiled
    assert outcome.reason == "1.04 times as fast as eager, 1.05 is asked"
    assert outcome.speedup == 1.04
    assert kept(library) == outcome
    artifact = library.get(KIND, name_of(mlp()))
    assert artifact is not None
    assert not artifact.parts


@pytest.mark.parametrize(("least", "is_compiled"), [(1.04, True), (1.041, False), (0, True)])
def test_what_is_worth_it_can_be_chosen(
    library: Library, steps: Steps, least: float, is_compiled: bool
) -> None:
    steps.examined = encode(SLOW)
    with Workshop(library, min_speedup=least) as shop:
        assert shop.make(mlp()).is_compiled == is_compiled


def test_what_is_wrong_is_eager_and_says_what_is(
    shop: Workshop, library: Library, steps: Steps
) -> None:
    steps.examined = encode(WRONG)
    outcome = shop.make(mlp())
    assert not outcome.is_compiled
    assert outcome.reason == "wrong: output is off by 1.0e-02 of its size"
    assert outcome.errors == {"output": 0.01}
    assert outcome.speedup is outcome.eager_ms is outcome.compiled_ms is None
    assert steps.told == ["make", "examine"], "to be wrong is no accident that is tried again"
    assert kept(library) == outcome


def test_what_fails_once_is_tried_again(shop: Workshop, library: Library, steps: Steps) -> None:
    steps.failing = ["no luck"]
    assert shop.make(mlp()).is_compiled
    assert steps.told == ["make", "make", "examine"]
    assert shop.retries == 1
    assert events(library) == ["begun", "failed", "begun", "ended", "decided"]


def test_what_fails_twice_stays_eager_with_the_last_reason(
    shop: Workshop, library: Library, steps: Steps
) -> None:
    steps.failing = ["no luck", "no compiler"]
    outcome = shop.make(mlp())
    assert not outcome.is_compiled
    assert outcome.reason == "it failed: no compiler"
    assert kept(library) == outcome
    assert steps.told == ["make", "make"]
    assert shop.make(mlp()) == outcome
    assert steps.told == ["make", "make"]


@pytest.mark.parametrize("left", [b"", b"{}", b'{"wrong": "", "errors": {"output": null}}'])
def test_an_examination_that_tells_nothing_is_a_failure(
    shop: Workshop, steps: Steps, left: bytes
) -> None:
    steps.examined = left
    outcome = shop.make(mlp())
    assert not outcome.is_compiled
    assert outcome.reason.startswith("it failed: examination is not")
    assert steps.told == ["make", "examine"] * 2


def test_where_torch_cannot_save_code_everything_is_eager(
    shop: Workshop, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workshop, "is_supported", lambda: False)
    outcome = shop.make(mlp())
    assert not outcome.is_compiled
    assert "cannot save compiled code" in outcome.reason
    assert steps.told == []


# What was there before


def test_what_is_kept_needs_no_child(library: Library, steps: Steps, shop: Workshop) -> None:
    first = shop.make(mlp())
    with Workshop(library) as another:
        assert another.make(mlp()) == first
        assert another.submit(mlp()).result() == first
    assert steps.told == ["make", "examine"]
    assert shop.make(mlp(batch=9)) != first
    assert steps.told == ["make", "examine"] * 2


def test_again_makes_a_new_version(library: Library, steps: Steps, shop: Workshop) -> None:
    steps.examined = encode(SLOW)
    assert not shop.make(mlp()).is_compiled
    steps.examined = encode(GOOD)
    assert not shop.make(mlp()).is_compiled
    assert shop.make(mlp(), again=True).is_compiled
    artifact = library.get(KIND, name_of(mlp()))
    assert artifact is not None
    assert artifact.version == 2
    assert of_artifact(artifact).is_compiled


def test_again_forgets_what_failed_before(library: Library, steps: Steps, shop: Workshop) -> None:
    for event in ("begun", "failed", "begun", "failed"):
        journal(library).write(Line(key=name_of(mlp()), event=event, reason="no luck"))
    assert shop.make(mlp(), again=True).is_compiled


def test_an_earlier_process_that_failed_leaves_one_try(
    library: Library, steps: Steps, shop: Workshop
) -> None:
    for event in ("begun", "failed"):
        journal(library).write(Line(key=name_of(mlp()), event=event, reason="no luck"))
    steps.failing = ["no compiler"]
    assert shop.make(mlp()).reason == "it failed: no compiler"
    assert steps.told == ["make"]


def test_an_earlier_process_that_failed_twice_has_decided(
    library: Library, steps: Steps, shop: Workshop
) -> None:
    for event in ("begun", "failed", "begun", "failed"):
        journal(library).write(Line(key=name_of(mlp()), event=event, reason="no luck"))
    assert shop.make(mlp()).reason == "it failed: no luck"
    assert steps.told == []
    assert shop.make(mlp(batch=9)).is_compiled


def test_what_ends_its_process_again_and_again_stays_eager(
    library: Library, steps: Steps, shop: Workshop
) -> None:
    for _ in range(MAX_INTERRUPTIONS):
        journal(library).write(Line(key=name_of(mlp()), event="begun"))
    assert shop.make(mlp()).reason == f"it failed: it was cut off {MAX_INTERRUPTIONS} times"
    assert steps.told == []


def test_what_somebody_else_signed_is_made_anew(
    library: Library, steps: Steps, shop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    with Library(library.root, signer=Signer(b"the key of somebody else")) as other:
        other.put(KIND, name_of(mlp()), PARTS, about=msgspec.to_builtins(Outcome(**FAKE)))
    outcome = shop.make(mlp())
    assert outcome.reason == "1.50 times as fast as eager"
    assert "is made anew" in caplog.text
    assert "not signed with the key" in caplog.text
    assert kept(library) == outcome


FAKE: dict[str, Any] = {"is_compiled": True, "reason": "believe me"}


def test_what_another_release_kept_is_made_anew(
    library: Library, steps: Steps, shop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    library.put(KIND, name_of(mlp()), {}, about={"verdict": "fast"})
    assert shop.make(mlp()).is_compiled
    assert "is made anew" in caplog.text


# Many


def test_no_more_children_than_the_limit(library: Library, steps: Steps) -> None:
    steps.during = lambda: time.sleep(0.02)
    done: dict[int, bool] = {}
    with Workshop(library, limit=3) as shop:
        shop.make_all(MANY, done=lambda asked, outcome: done.update({asked.batch: True}))
    assert done == dict.fromkeys(range(1, 9), True)
    assert 1 < steps.most_running <= 3
    assert len(steps.told) == 2 * len(MANY)


def test_what_is_asked_for_twice_is_made_once(shop: Workshop, steps: Steps) -> None:
    steps.during = lambda: time.sleep(0.02)
    futures = [shop.submit(mlp()) for _ in range(5)]
    assert len(set(futures)) == 1
    assert futures[0].result().is_compiled
    assert shop.submit(mlp()) is futures[0]
    assert steps.told == ["make", "examine"]


def test_two_workshops_make_it_once(library: Library, steps: Steps) -> None:
    steps.during = lambda: time.sleep(0.05)
    with Workshop(library) as one, Workshop(library) as two:
        futures = [one.submit(mlp()), two.submit(mlp())]
        assert futures[0].result() == futures[1].result()
    assert steps.told == ["make", "examine"]


# What goes wrong around it


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"limit": 0}, "at least 1, got 0"),
        ({"timeout": 0.0}, "more than 0, got 0.0"),
        ({"timeout": float("nan")}, "more than 0, got nan"),
    ],
)
def test_wrong_values_are_refused(library: Library, values: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Workshop(library, **values)


def test_a_library_that_can_only_be_read_is_refused(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Library, "read_only", True)
    with pytest.raises(LibraryReadOnly, match="name another folder"):
        Workshop(library)


def test_a_full_library_is_told_and_nothing_is_decided(
    library: Library, steps: Steps, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:

        def put(*_: object, **__: object) -> None:
            raise LibraryFull("no space is left")

        full.setattr(Library, "put", put)
        for _ in range(MAX_INTERRUPTIONS + 1):
            with pytest.raises(LibraryFull, match="no space"):
                shop.make(mlp())
        with pytest.raises(LibraryFull, match="no space"):
            shop.make_all([mlp()], done=lambda *_: None)
        assert isinstance(shop.submit(mlp()).exception(), LibraryFull)
    assert kept(library) is None
    assert "decided" not in events(library)
    assert shop.submit(mlp()).result().is_compiled, "it was not the recipe's fault"


def test_no_room_for_temporary_files_is_told_and_nothing_is_decided(
    library: Library, steps: Steps, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room() -> None:
        raise OSError(28, "No space left on device")

    steps.during = no_room
    for _ in range(MAX_INTERRUPTIONS + 1):
        with pytest.raises(OSError, match="No space left"):
            shop.make(mlp())
    steps.during = lambda: None
    assert shop.make(mlp()).is_compiled


def test_closing_does_not_wait_for_another_process(library: Library, steps: Steps) -> None:
    shop = Workshop(library)
    locks = library.root / "tezzeret" / "locks"
    locks.mkdir()
    with (locks / name_of(mlp())[:2]).open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        future = shop.submit(mlp())
        wait_until(future.running)
        time.sleep(0.2)
        assert steps.told == []
        shop.close()
    with pytest.raises(NotMade, match="another process"):
        future.result()


def test_it_waits_for_a_process_that_makes_the_same(library: Library, steps: Steps) -> None:
    locks = library.root / "tezzeret" / "locks"
    with Workshop(library) as shop:
        locks.mkdir()
        with (locks / name_of(mlp())[:2]).open("ab") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            future = shop.submit(mlp())
            time.sleep(0.2)
            library.put(KIND, name_of(mlp()), {}, about=FAKE | {"is_compiled": False})
        assert future.result().reason == "believe me"
    assert steps.told == []
