"""Loops that take turns."""

import threading
import time

import pytest

from esper_lightning.evidence.turns import Turns


def test_one_at_a_time_and_the_order_turns_round() -> None:
    seen: list[str] = []
    inside: set[str] = set()
    turns = Turns(["a", "b", "c"])

    def loop(name: str) -> None:
        for _ in range(4):
            assert not inside
            inside.add(name)
            time.sleep(0.001)
            seen.append(name)
            inside.discard(name)
            turns.pass_on(name)

    turns.run({name: (lambda name=name: loop(name)) for name in "abc"})
    assert "".join(seen) == "abccbaabccba"


def test_a_loop_that_ends_early_does_not_hold_the_others_up() -> None:
    seen: list[str] = []
    turns = Turns(["short", "long"])

    def loop(name: str, length: int) -> None:
        for _ in range(length):
            seen.append(name)
            turns.pass_on(name)

    turns.run({"short": lambda: loop("short", 1), "long": lambda: loop("long", 5)})
    assert seen.count("long") == 5
    assert seen.count("short") == 1


def test_a_failure_reaches_the_caller_and_stops_the_others() -> None:
    turns = Turns(["good", "bad"])
    rounds = 0

    def good() -> None:
        nonlocal rounds
        for _ in range(1000):
            rounds += 1
            turns.pass_on("good")

    def bad() -> None:
        turns.pass_on("bad")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        turns.run({"good": good, "bad": bad})
    assert rounds < 5
    assert not {"good", "bad"} & {thread.name for thread in threading.enumerate()}
