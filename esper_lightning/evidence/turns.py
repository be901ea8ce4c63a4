"""Letting several loops take turns in one process, block by block."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


class Turns:
    """Loops, each in a thread of its own, of which only one runs at any time.

    Each calls :meth:`pass_on` where it may be interrupted. The order is turned round from one round
    to the next, so that a machine that slows down or speeds up favours nobody.

    Args:
        names: of the loops.
    """

    def __init__(self, names: list[str]) -> None:
        self._order = names
        self._turn = 0
        self._running = set(names)
        self._changed = threading.Condition()
        self._errors: list[BaseException] = []

    def run(self, loops: Mapping[str, Callable[[], None]]) -> None:
        """Run all of them to their end.

        Raises:
            BaseException: what the first loop that failed raised; the others are stopped.
        """
        threads = [
            threading.Thread(target=self._live, args=(name, loop), name=name)
            for name, loop in loops.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def pass_on(self, name: str) -> None:
        """Let the others run, each up to its next call, then go on."""
        self._advance()
        self._wait(name)

    def _live(self, name: str, loop: Callable[[], None]) -> None:
        with self._failures():
            self._wait(name)
            loop()
        with self._changed:
            self._running.discard(name)
        self._advance()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        # Whatever stops one thread must wake the others and reach the caller.
        except BaseException as error:  # pylint: disable=broad-exception-caught
            self._errors.append(error)

    def _holder(self) -> str:
        turned, place = divmod(self._turn, len(self._order))
        return self._order[place if turned % 2 == 0 else -1 - place]

    def _advance(self) -> None:
        with self._changed:
            self._turn += 1
            while self._running and self._holder() not in self._running:
                self._turn += 1
            self._changed.notify_all()

    def _wait(self, name: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._errors) or self._holder() == name)
        if self._errors:
            raise InterruptedError(f"loop {name!r} is stopped because another one failed")
