"""How risky a run stands at a boundary."""

from enum import Enum, IntEnum

import msgspec


class RiskLevel(IntEnum):
    """What is done about a policy's choices. The numbers are those of every record: keep them.

    ``GREEN`` passes them. ``YELLOW`` lets fewer and safer seeds be planted. ``ORANGE`` lets none be
    planted, and judges those that live by rule instead of by the policy. ``RED`` pauses those that
    are not yet coupled, too. ``CRITICAL`` undoes the epoch.
    """

    GREEN = 0
    YELLOW = 1
    ORANGE = 2
    RED = 3
    CRITICAL = 4


class Signal(str, Enum):
    """What risk is told from."""

    GRADIENT = "gradient"
    PERFORMANCE = "performance"
    RESOURCES = "resources"
    LATENCY = "latency"
    LIFECYCLE = "lifecycle"


class Risk(msgspec.Struct, frozen=True, kw_only=True):
    """The risk at one boundary.

    Attributes:
        level: what is done about it.
        signals: by :class:`Signal`, 0 (none) to 1; one that could not be measured is absent.
        conservative: whether the system is in its conservative mode after this boundary.
        reason: in words, the signal that decided first.
    """

    level: RiskLevel
    signals: dict[Signal, float] = {}
    conservative: bool = False
    reason: str = ""
