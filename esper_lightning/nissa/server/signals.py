"""Streams end when the server is told to stop: it waits for open ones, which have no end."""

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM)
"""What stops a server."""


def call_at_signals(
    loop: asyncio.AbstractEventLoop, call: Callable[[], object]
) -> Callable[[], None]:
    """Call something in the event loop at a signal, and then what the signal called before.

    A signal that nobody handles in Python is left as it is, and outside of the main thread all are:
    who serves there says himself when it is over.

    Args:
        loop: that is running.
        call: what is called, once for each signal.

    Returns:
        What puts the signals back.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    before: dict[int, Any] = {}

    def heard(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(call)
        before[number](number, frame)

    for number in STOPPING:
        earlier = signal.getsignal(number)
        if callable(earlier):
            before[number] = earlier
            signal.signal(number, heard)

    def restore() -> None:
        for number, earlier in before.items():
            if signal.getsignal(number) is heard:
                signal.signal(number, earlier)

    return restore
