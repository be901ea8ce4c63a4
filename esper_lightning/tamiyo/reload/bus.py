"""New policies from the bus."""

import logging
import re
from collections import Counter, deque
from pathlib import Path

from esper_lightning.leyline import BusUnavailable, EsperError, PolicyUpdate
from esper_lightning.oona import (
    FIELD,
    Admission,
    Breaker,
    Connection,
    Refusal,
    Refused,
    Role,
    Settings,
    alarm,
    connect,
)
from esper_lightning.tamiyo.reload.source import Source

log = logging.getLogger(__name__)

PAGE = 500
"""Entries of one trip to the server."""

PAGES = 2
"""Trips of one poll at most: as many entries as the stream keeps. A flood waits for its turn."""

_RETRY_S = 10.0
_MOST_S = 300.0
_ENTRY = re.compile(r"\d+-\d+")


class BusPolicies(Source):
    """Reads the bus's stream of policies, from its beginning at the start of a run.

    A message is taken if it is authentic, of today and new. Those that are not are counted by
    reason, and of what is forged an alert is sent, one for each poll. After forged messages in a
    row nothing is handed out until the bus is trusted again; it is kept until then. A bus that
    cannot be reached has no policies: that is logged once, and it is tried again in ten seconds,
    later each time.

    Args:
        url: of the bus, as ``oona.url``.
        folder: where an embedded bus of this run has its files.

    Attributes:
        refused: messages that were not taken, by reason.

    Raises:
        InvalidArgument: at the first poll, the url is none.
        KeyRequired: at the first poll, the bus is shared and there is no key to verify with.
    """

    def __init__(self, *, url: str = "auto", folder: Path | str | None = None) -> None:
        self.refused: Counter[Refusal] = Counter()
        self._url = url
        self._folder = None if folder is None else Path(folder)
        self._settings: Settings | None = None
        self._connection: Connection | None = None
        self._admission: Admission | None = None
        self._breaker = Breaker(failures=1, wait_s=_RETRY_S, most_s=_MOST_S)
        self._was_told = False
        self._read_to = ""
        self._handed_out_to = ""
        self._kept: deque[PolicyUpdate] = deque(maxlen=PAGE * PAGES)
        self._forged: list[Refused] = []
        self._reasons: dict[Refusal, tuple[int, str]] = {}

    def poll(self) -> list[PolicyUpdate]:
        """What is authentic and came since."""
        if self._breaker.allows():
            try:
                self._read()
                self._breaker.succeeded()
                self._was_told = False
            except BusUnavailable as error:
                self._breaker.failed()
                self._hang_up()
                if not self._was_told:
                    log.warning("no new policies can be heard of: %s", error)
                    self._was_told = True
        if self.distrust():
            return []
        updates = list(self._kept)
        self._kept.clear()
        self._handed_out_to = self._read_to
        return updates

    def refusals(self) -> list[str]:
        """One line for each reason."""
        lines = [
            f"{text}{f'; and {num - 1} more messages, {why.value}' if num > 1 else ''}"
            for why, (num, text) in self._reasons.items()
        ]
        self._reasons.clear()
        return lines

    def distrust(self) -> str:
        """Forged messages came in a row, and since then too few authentic ones."""
        if self._admission is None or not self._admission.is_conservative:
            return ""
        return "somebody forges messages on the bus's stream of policies"

    def position(self) -> str:
        """The last entry of which nothing is kept back."""
        return self._handed_out_to

    def continue_from(self, position: str) -> None:
        """Read on behind that entry; from the beginning if it is none."""
        self._read_to = position if _ENTRY.fullmatch(position) else ""
        self._handed_out_to = self._read_to
        self._kept.clear()

    def close(self) -> None:
        """Let go of the bus; the next poll takes hold of it again."""
        self._hang_up()

    def _read(self) -> None:
        connection, admission, settings = self._opened()
        for _ in range(PAGES):
            entries = connection.read(
                settings.streams[Role.POLICY], after=self._read_to or "0", count=PAGE
            )
            for entry_id, fields in entries:
                self._read_to = entry_id.decode()
                self._take(admission, fields.get(FIELD))
            if len(entries) < PAGE:
                break
        if self._forged:
            first, num = self._forged[0], len(self._forged)
            self._forged.clear()
            text = f"{first.text} (the first of {num} on the stream of policies)"
            tell = alarm(connection, settings, connection.signer(), source="tamiyo")
            tell(Refused(first.why, text))

    def _take(self, admission: Admission, sealed: bytes | None) -> None:
        try:
            message = admission.admit(Role.POLICY, sealed, remember=True).message
        except Refused as refused:
            self.refused[refused.why] += 1
            num, text = self._reasons.get(refused.why, (0, str(refused)))
            self._reasons[refused.why] = (num + 1, text)
            return
        self._kept.append(message)

    def _opened(self) -> tuple[Connection, Admission, Settings]:
        if self._settings is None:
            self._settings = Settings.from_environment(self._url)
        if self._connection is None:
            self._connection = connect(self._settings.url, folder=self._folder)
        if self._admission is None:  # it remembers ids, and outlives a connection
            try:
                signer = self._connection.signer()
            except EsperError:
                self._hang_up()
                raise
            self._admission = Admission(signer, on_forged=self._forged.append)
        return self._connection, self._admission, self._settings

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
