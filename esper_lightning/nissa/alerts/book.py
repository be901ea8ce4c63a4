"""The alerts of a process: raised by the rule table where no Prometheus runs."""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

import msgspec
from msgspec.structs import replace

from esper_lightning.leyline import InvalidArgument, Severity
from esper_lightning.nissa.alerts.rules import RULES, Rule
from esper_lightning.nissa.metrics import History, Labels, Series

MAX_RESOLVED = 200
"""Resolved alerts that are remembered."""

MAX_WHO = 200
"""Characters of the name of who acknowledges."""


class AlertState(str, Enum):
    """Where an alert stands; one that is inactive is not in the book."""

    PENDING = "pending"
    FIRING = "firing"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert.

    Attributes:
        id: unique; an alert that comes back has another one.
        name: of its rule.
        severity: how soon somebody should look.
        state: where it stands.
        labels: of the series that it is about.
        value: of the rule's expression, when it last held.
        text: what is wrong, in words.
        remedy: what to do first.
        since: Unix time in seconds from which on the rule's expression held.
        fired: Unix time at which it was raised, None while it is pending.
        resolved: Unix time at which it was over.
        acknowledged_by: who said that they look after it, or empty.
        acknowledged: Unix time at which they said it.
    """

    id: str
    name: str
    severity: Severity
    state: AlertState
    labels: dict[str, str]
    value: float
    text: str
    remedy: str
    since: float
    fired: float | None = None
    resolved: float | None = None
    acknowledged_by: str = ""
    acknowledged: float | None = None


Listener = Callable[[Alert], None]
"""Called with every alert that was raised, acknowledged or resolved."""


class AlertBook:
    """Works the rules out on samples, and keeps what came of it. May be used by several threads.

    States follow Prometheus: an alert is pending from the moment at which its rule's expression
    holds, firing when it held for the rule's time without a break, and resolved when it no longer
    does; one that was only pending is forgotten.

    Args:
        rules: the table.
        clock: Unix seconds.
        tell: called, outside of the lock, with every alert that was raised, acknowledged or
            resolved.
    """

    def __init__(
        self,
        rules: Sequence[Rule] = RULES,
        *,
        clock: Callable[[], float] = time.time,
        tell: Listener | None = None,
    ) -> None:
        self.rules = tuple(rules)
        self._clock = clock
        self._tell = tell
        watched = frozenset(each.name for rule in rules for each in rule.when.metrics())
        self._history = History(watched, max((r.when.span_s() for r in rules), default=0.0))
        self._active: dict[tuple[str, Labels], Alert] = {}
        self._resolved: deque[Alert] = deque(maxlen=MAX_RESOLVED)
        self._set_back_s = 0.0
        self._lock = threading.Lock()

    def observe(self, samples: Mapping[Series, float], *, at: float | None = None) -> None:
        """Take the samples of one moment and work all rules out.

        Args:
            samples: of all processes that are watched; a series that is missing has ended.
            at: Unix time in seconds; None asks the clock. After the clock was set back time goes on
                from the last moment, until the clock has come there again.
        """
        changed: list[Alert] = []
        with self._lock:
            now = self._moment(self._clock() if at is None else at)
            self._history.append(now, samples)
            for rule in self.rules:
                changed += self._work_out(rule, now)
        self._tell_all(changed)

    def alerts(self) -> list[Alert]:
        """Every alert, active ones first, each the latest first."""
        with self._lock:
            active = sorted(self._active.values(), key=lambda alert: -alert.since)
            return active + list(reversed(self._resolved))

    def acknowledge(
        self, alert_id: str, who: str, *, note: Callable[[Alert], object] | None = None
    ) -> Alert:
        """Somebody looks after an alert that is firing. A second one takes it over.

        Args:
            alert_id: its id.
            who: their name, at most 200 characters.
            note: called with the alert as it will be, just before it is: whatever it raises is
                raised, and nobody has acknowledged anything. Looks at the rules wait for it.

        Raises:
            InvalidArgument: no alert of this id is firing, or nobody is named.
        """
        name = who.strip()
        if not 0 < len(name) <= MAX_WHO or not name.isprintable():
            raise InvalidArgument(
                f"who acknowledges has a name of 1 to {MAX_WHO} printable characters, got "
                f"{who[:MAX_WHO]!r}"
            )
        with self._lock:
            key = next((key for key, alert in self._active.items() if alert.id == alert_id), None)
            if key is None or self._active[key].state is AlertState.PENDING:
                firing = ", ".join(self._firing()) or "none"
                raise InvalidArgument(f"no alert {alert_id[:80]!r} is firing; firing: {firing}")
            alert = replace(
                self._active[key],
                state=AlertState.ACKNOWLEDGED,
                acknowledged_by=name,
                acknowledged=self._moment(self._clock()),
            )
            if note is not None:
                note(alert)
            self._active[key] = alert
        self._tell_all([alert])
        return alert

    # -- inside, with the lock --------------------------------------------------------------------

    def _moment(self, at: float) -> float:
        last = self._history.now
        if at >= last:
            self._set_back_s = 0.0
        elif at + self._set_back_s < last:
            self._set_back_s = last - at
        return max(last, at + self._set_back_s)

    def _firing(self) -> list[str]:
        return [a.id for a in self._active.values() if a.state is not AlertState.PENDING]

    def _work_out(self, rule: Rule, now: float) -> list[Alert]:
        holds = rule.when.value(self._history)
        changed = []
        for labels, value in holds.items():
            key = (rule.name, labels)
            alert = self._active.get(key) or _begin(rule, labels, now)
            alert = replace(alert, value=value)
            if alert.state is AlertState.PENDING and now - alert.since >= rule.for_s:
                alert = replace(alert, state=AlertState.FIRING, fired=now)
                changed.append(alert)
            self._active[key] = alert
        over = [key for key in self._active if key[0] == rule.name and key[1] not in holds]
        for key in over:
            alert = self._active.pop(key)
            if alert.state is not AlertState.PENDING:
                alert = replace(alert, state=AlertState.RESOLVED, resolved=now)
                self._resolved.append(alert)
                changed.append(alert)
        return changed

    def _tell_all(self, changed: Sequence[Alert]) -> None:
        if self._tell is not None:
            for alert in changed:
                self._tell(alert)


def _begin(rule: Rule, labels: Labels, now: float) -> Alert:
    told = msgspec.json.encode((rule.name, labels, now))
    return Alert(
        id=hashlib.sha256(told).hexdigest()[:16],
        name=rule.name,
        severity=rule.severity,
        state=AlertState.PENDING,
        labels=dict(labels),
        value=0.0,
        text=rule.text,
        remedy=rule.remedy,
        since=now,
    )
