"""What becomes of a policy's choices at each level."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from esper_lightning.karn import query
from esper_lightning.leyline import (
    LIVE_STAGES,
    CommandKind,
    RiskLevel,
    SeedStage,
    SeedState,
    SystemState,
)
from esper_lightning.tamiyo.policy import Choice, wait
from esper_lightning.tamiyo.risk.pauses import Pauses
from esper_lightning.tamiyo.trial import is_last, live

ACTING = frozenset({SeedStage.BLENDING, SeedStage.SHADOWING, SeedStage.PROBATIONARY})
"""Stages of a live seed that the network's output depends on."""

SUSPECT = 10
"""Epochs for which a fossil may be what made the network worse: as long as the governor's."""

MOST_UNDONE = 3
"""Boundaries that a rollback undoes at most: the governor keeps few."""

_SETTLES = frozenset(
    {CommandKind.FOSSILIZE, CommandKind.CULL, CommandKind.EMERGENCY, CommandKind.PRUNE}
)
_BY_RULE = frozenset(
    {
        CommandKind.ADVANCE,
        CommandKind.FOSSILIZE,
        CommandKind.CULL,
        CommandKind.RESUME,
        CommandKind.EMERGENCY,
    }
)
_NO_SLOT = frozenset({CommandKind.NOOP, CommandKind.ROLLBACK})


@dataclass(kw_only=True, slots=True)
class Reaction:
    """One boundary.

    Attributes:
        state: at the boundary.
        level: in force.
        why: it is, in words.
        conservative: the mode is on.
        is_critical: this boundary itself is CRITICAL, not only an earlier one's level held.
        may_roll_back: the last rollback is long enough ago.
        bad: boundaries in a row, this one included, that were bad: what a rollback undoes.
        pauses: how long seeds have been paused.
        pause_limit: for how many boundaries they may be.
    """

    state: SystemState
    level: RiskLevel
    why: str
    conservative: bool
    is_critical: bool
    may_roll_back: bool
    bad: int
    pauses: Pauses
    pause_limit: int
    _slots: dict[str, SeedState] = field(init=False)
    _rules: dict[str, Choice] = field(init=False)
    _is_last: bool = field(init=False)
    _trusted: frozenset[str] | None = field(init=False)

    def __post_init__(self) -> None:
        self._slots = {}
        for slot in self.state.slots:
            self._slots.setdefault(slot.slot, slot)
        self._is_last = is_last(self.state)
        reduced = self.conservative or self.level >= RiskLevel.YELLOW
        self._trusted = (
            frozenset(blueprint.name for blueprint in query(conservative=True)) if reduced else None
        )
        self._rules = {}

    def of(self, choices: Sequence[Choice], *, fallback: Sequence[Choice]) -> list[Choice]:
        """The choices after it, those that are refused among them.

        Args:
            choices: the policy's.
            fallback: what the rules for seeds on trial say.
        """
        if self._rolls_back():
            undone = f"{self.level.name} undoes what they are about; {self.why}"
            rollback = Choice(
                kind=CommandKind.ROLLBACK,
                parameters={"boundaries": self.bad},
                reason=self._say("undo what went wrong"),
            )
            return [rollback, *(_refuse(choice, undone) for choice in choices)]
        self._rules = self._by_rule(fallback)
        seen: list[Choice] = []
        for choice in choices:
            why_not = "" if choice.refused else self._why_not(choice, seen)
            seen.append(_refuse(choice, why_not) if why_not else choice)
        taken = {choice.slot for choice in seen if not choice.refused}
        for slot, rule in self._rules.items():
            if rule.kind is CommandKind.PAUSE:
                self.pauses.mark(slot)
        rules = [choice for slot, choice in self._rules.items() if slot not in taken]
        return _one_noop(seen, rules, self._say("nothing is done"))

    def _rolls_back(self) -> bool:
        """True where what went wrong is undone: something that grew can have harmed it.

        The host alone trains as it would without any controller, whatever becomes of it. At the
        last boundary seeds must be settled, which nothing can be after a rollback.
        """
        return (
            self.is_critical
            and self.may_roll_back
            and 1 <= self.bad <= MOST_UNDONE
            and self.state.rollbacks is not None
            and not self._is_last
            and any(self._is_suspect(slot) for slot in self.state.slots)
        )

    def _is_suspect(self, slot: SeedState) -> bool:
        since = self.state.epoch - SUSPECT
        return (
            slot.stage in ACTING
            or slot.stage is SeedStage.CULLED
            or any(fossil.fossilized_epoch > since for fossil in slot.fossils)
        )

    def _by_rule(self, fallback: Sequence[Choice]) -> dict[str, Choice]:
        """By slot, what is done there unless the policy's choice goes first."""
        rules: dict[str, Choice] = {}
        if self.level >= RiskLevel.ORANGE:
            for choice in fallback:
                slot = self._slots.get(choice.slot)
                if slot is not None and slot.stage in LIVE_STAGES and choice.kind in _BY_RULE:
                    self._add(rules, choice.kind, slot, choice.reason)
        if self._is_last:
            return rules
        for slot in live(self._slots.values()):
            if self.is_critical and slot.stage in ACTING:
                rules.pop(slot.slot, None)
                self._add(rules, CommandKind.EMERGENCY, slot, "it acts on the network's output")
            if self._may_pause(slot):
                self._add(rules, CommandKind.PAUSE, slot, "it waits until the level falls")
            released = self.pauses.release(
                slot, limit=self.pause_limit, has_fallen=self.level < RiskLevel.RED
            )
            if released is not None:
                self._add(rules, released.kind, slot, released.reason)
        return rules

    def _may_pause(self, slot: SeedState) -> bool:
        """True for a seed that is not coupled yet: it may wait without a change for the network."""
        return (
            self.level >= RiskLevel.RED
            and slot.stage not in ACTING
            and self.pauses.pausable(slot, limit=self.pause_limit)
        )

    def _add(
        self, rules: dict[str, Choice], kind: CommandKind, slot: SeedState, reason: str
    ) -> None:
        if kind in slot.legal and slot.slot not in rules:
            rules[slot.slot] = Choice(kind=kind, slot=slot.slot, reason=self._say(reason))

    def _why_not(self, choice: Choice, seen: Sequence[Choice]) -> str:
        """Why a choice of the policy is not carried out, empty if it is."""
        kind = choice.kind
        if kind in _NO_SLOT:
            return self._why_no_rollback() if kind is CommandKind.ROLLBACK else ""
        slot = self._slots.get(choice.slot)
        if slot is None or kind not in slot.legal:
            return f"{kind.name} is not legal in {choice.slot!r}"
        if any(other.slot == choice.slot and not other.refused for other in seen):
            return f"{choice.slot!r} has a command already"
        if kind is CommandKind.GERMINATE:
            return self._why_no_planting(choice, seen)
        if kind is CommandKind.PAUSE:
            if self._is_last:
                return "at the last boundary seeds are settled"
            if not self.pauses.pausable(slot, limit=self.pause_limit):
                return f"it was paused at {self.pause_limit} boundaries, the most allowed"
        if self.level < RiskLevel.ORANGE or (self._is_last and kind in _SETTLES):
            return ""
        rule = self._rules.get(choice.slot)
        if rule is not None and rule.kind is kind:
            return ""
        return f"{self.level.name} leaves {choice.slot!r} to rules; {self.why}"

    def _why_no_rollback(self) -> str:
        if self.state.rollbacks is None:
            return "there is no governor that keeps what to go back to"
        if self._is_last and live(self.state.slots):
            return "at the last boundary seeds are settled"
        if self.level >= RiskLevel.ORANGE:
            return f"{self.level.name} leaves it to rules; {self.why}"
        return ""

    def _why_no_planting(self, choice: Choice, seen: Sequence[Choice]) -> str:
        if self.level >= RiskLevel.ORANGE:
            return f"{self.level.name} plants nothing; {self.why}"
        if self._trusted is None:
            return ""
        if choice.blueprint not in self._trusted:
            return f"{choice.blueprint} is not among the blueprints of the lowest risk; {self.why}"
        if any(each.kind is CommandKind.GERMINATE and not each.refused for each in seen):
            return f"one seed is planted at a boundary; {self.why}"
        return ""

    def _say(self, what: str) -> str:
        return f"{what}; risk {self.level.name}: {self.why}"


def _refuse(choice: Choice, why: str) -> Choice:
    """The choice, recorded only; a refusal of somebody else stands."""
    return choice if choice.refused else replace(choice, refused=f"risk: {why}")


def _one_noop(choices: Sequence[Choice], rules: Sequence[Choice], why: str) -> list[Choice]:
    """As every policy's: one NOOP where nothing is done; where anything is, one behind it or none.

    Args:
        choices: the policy's. Its NOOP behind what it does is its choice to do no more.
        rules: what is done besides.
        why: nothing is done, where the policy does not even wait.
    """
    done: list[Choice] = []
    noops: list[Choice] = []
    for choice in choices:
        waits = choice.kind is CommandKind.NOOP and not choice.refused
        (noops if waits else done).append(choice)
    kinds = {each.kind for each in done if not each.refused}
    waits = not kinds and not rules
    if waits and not noops:
        noops = wait(why)
    # Nothing follows a ROLLBACK.
    num = int(waits or bool(kinds - {CommandKind.ROLLBACK}))
    refused = [_refuse(each, "it does not wait here") for each in noops[num:]]
    return [*done, *refused, *rules, *noops[:num]]
