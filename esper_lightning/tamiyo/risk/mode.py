"""The system's one conservative mode: when it begins, and when it ends."""

from collections.abc import Mapping
from typing import Any

import msgspec

from esper_lightning.leyline import InvalidArgument, RiskLevel
from esper_lightning.tamiyo.policy import restore
from esper_lightning.tamiyo.risk.rules import RiskRules

MOST_DOUBLINGS = 3
"""So often the stay doubles: with five boundaries at first, it is never asked for more than 40."""

REDS = 2
"""So many rises to RED within a window enter the mode."""


class _Stay(msgspec.Struct, forbid_unknown_fields=True):
    """Where it stands.

    Attributes:
        reason: why it is on; empty while it is not.
        entries: how often it was entered.
        boundaries: since it was entered.
        greens: GREEN boundaries in a row.
        reds: for each recent rise to RED, the boundaries since.
        was_red: the last boundary was RED or worse.
    """

    reason: str = ""
    entries: int = 0
    boundaries: int = 0
    greens: int = 0
    reds: list[int] = []
    was_red: bool = False


class ConservativeMode:
    """In it at most one seed is planted at a boundary, from the blueprints of the lowest risk.

    It is entered at the first CRITICAL boundary, at the second rise to RED within a window, or from
    outside. It is left after enough GREEN boundaries in a row, once it has lasted its least stay,
    which doubles with each entry.

    Args:
        rules: windows and stays.
    """

    def __init__(self, rules: RiskRules) -> None:
        self._rules = rules
        self._stay = _Stay()

    @property
    def active(self) -> bool:
        """True while the mode is on."""
        return bool(self._stay.reason)

    @property
    def reason(self) -> str:
        """Why it is on, in words; empty while it is not."""
        return self._stay.reason

    @property
    def least_stay(self) -> int:
        """Boundaries that it lasts at least, now or the last time it was on."""
        doublings = min(max(0, self._stay.entries - 1), MOST_DOUBLINGS)
        return int(self._rules.stay * 2**doublings)

    def enter(self, reason: str) -> None:
        """Turn it on; where it is on already, its stay begins anew.

        Raises:
            InvalidArgument: the reason is missing.
        """
        if not reason:
            raise InvalidArgument("conservative mode is entered for a reason in words, got none")
        self._stay.entries += not self.active
        self._stay.reason = reason
        self._stay.boundaries = self._stay.greens = 0

    def observe(self, level: RiskLevel, *, critical: bool) -> None:
        """Take in one boundary; enter or leave by rule.

        Args:
            level: at this boundary.
            critical: this boundary itself is CRITICAL, not only the level of an earlier one held.
        """
        stay = self._stay
        stay.boundaries += self.active
        stay.greens = stay.greens + 1 if level is RiskLevel.GREEN else 0
        stay.reds = [ago + 1 for ago in stay.reds if ago + 1 < self._rules.red_window]
        is_red = level >= RiskLevel.RED
        if is_red and not stay.was_red:
            stay.reds.append(0)
        stay.was_red = is_red
        if critical:
            self.enter("the level was CRITICAL")
        elif len(stay.reds) >= REDS:
            stay.reds = []
            self.enter(f"RED {REDS} times within {self._rules.red_window} boundaries")
        elif stay.boundaries >= self.least_stay and stay.greens >= self._rules.greens:
            stay.reason, stay.boundaries = "", 0

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        saved: dict[str, Any] = msgspec.to_builtins(self._stay)
        return saved

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            InvalidArgument: ``state`` is none of these; nothing was changed.
        """
        self._stay = restore(_Stay, state, policy="conservative mode")
