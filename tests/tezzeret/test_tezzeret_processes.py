"""However a child ends, nothing of it stays, and its end is the reason; shells stand in for it."""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest
from small_recipes import MANY, alive, events, journal, mlp, name_of, wait_until

from esper_lightning.tezzeret import NotMade, Workshop, workshop
from esper_lightning.tezzeret.journal import MAX_INTERRUPTIONS
from esper_lightning.tezzeret.outcome import KIND
from esper_lightning.urza import Library


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[int]]:
    """Makes every child a shell that runs a script; returns their process groups."""

    def use(script: str) -> list[int]:
        groups: list[int] = []
        start = Workshop._start

        def instead(self: Workshop, command: list[str], *rest: Any) -> Any:
            assert command[1:3] == ["-m", "esper_lightning.tezzeret.child"]
            child = start(self, ["sh", "-c", script, *command[3:]], *rest)
            groups.append(child.pid)
            return child

        monkeypatch.setattr(Workshop, "_start", instead)
        return groups

    monkeypatch.setattr(workshop, "is_supported", lambda: True)
    return use


TRACEBACK = """Traceback (most recent call last):
  File one
KeyError: first

As a result:

Traceback (most recent call last):
  File two
package.Unsupported: not this
  Hint: that

from user code:
  File three

Set VERBOSE=1 for more

"""
SLEEPS = "sleep 1000 & sleep 1000"


def gone(groups: list[int]) -> bool:
    return not any(alive(group) for group in groups)


def test_a_timeout_ends_the_whole_group(library: Library, shell: Any) -> None:
    groups = shell(SLEEPS)
    with Workshop(library, timeout=0.3) as shop:
        outcome = shop.make(mlp())
        assert outcome.reason == "it failed: make took more than 0.3 s"
    assert len(groups) == 2
    wait_until(lambda: gone(groups))


def test_a_child_that_leaves_processes_leaves_none(library: Library, shell: Any) -> None:
    groups = shell("sleep 1000 & exit 3")
    with Workshop(library) as shop:
        assert shop.make(mlp()).reason == "it failed: make ended with status 3: silently"
    wait_until(lambda: gone(groups))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo first; echo the reason; echo; exit 1", "status 1: the reason"),
        (f"cat <<END\n{TRACEBACK}END\nexit 1", "status 1: package.Unsupported: not this"),
        ("kill -SEGV $$", "signal 11: silently"),
        ("exit 0", "status 0: silently"),
        ("touch $1/code; exit 0", "status 0: silently"),
        ("printf '\\377 broken' >&2; exit 2", "status 2: \ufffd broken"),
    ],
)
def test_how_a_child_ended_is_the_reason(
    library: Library, shell: Any, script: str, reason: str
) -> None:
    shell(script)
    with Workshop(library) as shop:
        assert shop.make(mlp()).reason == f"it failed: make ended with {reason}"


def test_a_source_that_changed_meanwhile_decides_nothing(library: Library, shell: Any) -> None:
    shell("exit 75")
    with Workshop(library) as shop, pytest.raises(NotMade, match="the source of the branch"):
        shop.make(mlp())
    assert events(library) == ["begun", "ended"]


def test_closing_ends_children_and_decides_nothing(library: Library, shell: Any) -> None:
    groups = shell(SLEEPS)
    shop = Workshop(library, limit=2)
    futures = [shop.submit(asked) for asked in MANY]
    wait_until(lambda: len(groups) == 2)
    shop.close()
    wait_until(lambda: gone(groups))
    assert all(future.done() for future in futures)
    for future in futures:
        with pytest.raises((NotMade, CancelledError)):
            future.result()
    assert not [each for each in threading.enumerate() if each.name.startswith("tezzeret")]
    with pytest.raises(NotMade, match="closed"):
        shop.make(mlp())
    with pytest.raises(NotMade, match="closed"):
        shop.submit(mlp(batch=99))
    assert not library.find(KIND)
    shop.close()


def test_closing_again_and_again_is_no_interruption(library: Library, shell: Any) -> None:
    groups = shell("sleep 1000")
    for number in range(MAX_INTERRUPTIONS + 1):
        with Workshop(library) as shop:
            shop.submit(mlp())
            wait_until(lambda number=number: len(groups) > number)
    assert journal(library).failures(name_of(mlp())) == []
