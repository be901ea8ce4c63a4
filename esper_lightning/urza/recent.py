"""Answers that are still right."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The answers that were asked for last, for as long as nothing has changed. Not for threads.

    Args:
        most: answers that are kept.
    """

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._answers: OrderedDict[K, V] = OrderedDict()
        self._state: object = None

    def follow(self, state: object) -> None:
        """Forget every answer if the state that they were given in is another one now."""
        if state != self._state:
            self._answers.clear()
            self._state = state

    def __contains__(self, question: K) -> bool:
        return question in self._answers

    def __getitem__(self, question: K) -> V:
        self._answers.move_to_end(question)
        return self._answers[question]

    def __setitem__(self, question: K, answer: V) -> None:
        self._answers[question] = answer
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)

    def __len__(self) -> int:
        return len(self._answers)
