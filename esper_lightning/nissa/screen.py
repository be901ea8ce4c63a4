"""Where a live view is drawn: a terminal that is redrawn, or plain lines where there is none."""

import logging
import sys
from typing import TextIO

from rich.console import Console, RenderableType
from rich.live import Live


class Screen:
    """Draws one view again and again while it is started.

    Everything that the program prints or logs meanwhile appears above the view. Nothing is drawn
    where the output is not a terminal: :meth:`line` prints there instead.

    Args:
        view: what to draw; it is asked anew for each refresh, in another thread.
        refresh_hz: redraws a second.
        console: where; None takes standard output.
    """

    def __init__(
        self, view: RenderableType, *, refresh_hz: float, console: Console | None = None
    ) -> None:
        self._view = view
        self._refresh_hz = refresh_hz
        self._console = console
        self._live: Live | None = None
        self._redirected: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []

    @property
    def _out(self) -> Console:
        if self._console is None:
            self._console = Console()
        return self._console

    @property
    def can_redraw(self) -> bool:
        """Whether the output is a terminal that can move its cursor."""
        return self._out.is_terminal and not self._out.is_dumb_terminal

    def start(self) -> None:
        """Draw from now on; does nothing when it draws already or cannot."""
        if self._live is not None or not self.can_redraw:
            return
        streams = (sys.stdout, sys.stderr)
        self._live = Live(
            console=self._out,
            get_renderable=lambda: self._view,
            refresh_per_second=self._refresh_hz,
        )
        self._live.start(refresh=True)
        self._redirected = [
            (handler, handler.setStream(sys.stderr) or handler.stream)
            for handler in _terminal_log_handlers(streams)
        ]

    def stop(self) -> None:
        """Draw a last time and give the terminal back; does nothing when it does not draw."""
        if self._live is None:
            return
        for handler, stream in self._redirected:
            handler.setStream(stream)
        self._redirected = []
        self._live.stop()
        self._live = None

    def line(self, text: str) -> None:
        """Print ``text`` where nothing can be drawn; on a terminal the view tells it."""
        if not self.can_redraw:
            self._out.print(text, markup=False, highlight=False, soft_wrap=True)


def _terminal_log_handlers(streams: tuple[TextIO, TextIO]) -> list[logging.StreamHandler[TextIO]]:
    """Handlers that write to one of ``streams`` directly, and would write into the view."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    return [
        handler
        for logger in loggers
        if isinstance(logger, logging.Logger)
        for handler in logger.handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream in streams
    ]
