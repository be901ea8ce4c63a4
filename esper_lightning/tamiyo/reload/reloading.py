"""A policy that is replaced between epochs by newer ones, as long as they keep their promises."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from esper_lightning.kasmina.random_stream import undisturbed_random
from esper_lightning.leyline import (
    CommandKind,
    InvalidArgument,
    PolicyChanged,
    PolicyStep,
    PolicyUpdate,
    Risk,
    RiskLevel,
    SystemState,
    decode,
    encode,
)
from esper_lightning.leyline.arguments import check_whole
from esper_lightning.tamiyo.policy import Choice, Policy, restore
from esper_lightning.tamiyo.reload.checking import PolicyRefused, checked
from esper_lightning.tamiyo.reload.history import History
from esper_lightning.tamiyo.reload.source import Source

log = logging.getLogger(__name__)

KEPT = 3
"""Policies that are kept: the run's own, the one that decides, and the one before it."""

MAX_LOOKS = 3
"""Versions that are looked at in one boundary: a broken one must not hide the good one below it,
as where a run begins with all that was ever published, and a flood must not cost more."""

MAX_TOLD = 8
"""Refusals of one boundary that are recorded one by one; a flood's others are counted in one."""

MAX_REMEMBERED = 1000
"""Updates that are remembered as refused or taken out, so that each is recorded once."""

MAX_REASON = 500
"""Characters of a reason; a text from outside may be of any length."""

_BAD = RiskLevel.ORANGE


@dataclass(slots=True)
class _Installed:
    """A policy that decides, or may decide again.

    Attributes:
        policy: itself.
        version: None where the run's own has none.
        update: that brought it; None for the run's own.
        since: boundaries that were seen when it was installed.
        seen: boundaries that were seen when it last decided.
    """

    policy: Policy
    version: int | None
    update: PolicyUpdate | None = None
    since: int = 0
    seen: int = 0


class _SavedPolicy(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    update: PolicyUpdate | None
    since: int
    seen: int
    state: dict[str, Any]


class _Saved(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a checkpoint holds; the policies from the run's own to the one that decides."""

    policies: list[_SavedPolicy]
    newest: int
    alarm: str
    risk: RiskLevel
    position: str
    num_seen: int
    history: list[SystemState]


class Reloading(Policy):
    """Decides as a policy does, until a newer version of it comes and proves itself.

    At each boundary the source is asked, and the highest of the versions that came is looked at;
    where that is refused the next one, a few at most. It must be of this policy's name, and above
    every version that was looked at before this boundary. It is loaded and tried: it decides on the
    run's last boundaries, in their order, and so gets to know the run. All that it chooses there
    must be legal, see ``checking.checked``, and what it remembers must survive a checkpoint. Then
    it decides, at this same boundary.

    From then on it goes at once, and the version before it decides at the same boundary, if it
    raises or chooses what is not legal; and, in its first boundaries, if the risk is ``ORANGE`` or
    above. The version before is first told of the boundaries it has missed, as far as they are
    kept. The run's own policy is the last that is left, and is not judged: what it raises ends the
    run. While the risk is ``ORANGE`` or above, nothing new is looked at.

    What loaded policies draw from global generators of the CPU is undone.

    Args:
        policy: the run's own, which decides until another does.
        source: where newer ones are heard of.
        load: fetches, verifies and builds the policy of an update, fresh; raises where that cannot
            be done.
        version: of the run's own policy; None where it has none.
        watch: boundaries of a new policy at which the risk is held against it, at least 1.

    Attributes:
        name: that of the run's own policy.

    Raises:
        InvalidArgument: a number is below 1.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        source: Source,
        load: Callable[[PolicyUpdate], Policy],
        version: int | None = None,
        watch: int = 3,
    ) -> None:
        check_whole("version", version, least=1, or_none=True)
        check_whole("watch", watch, least=1)
        vars(self)["name"] = policy.name
        self.budget = policy.budget
        self._source = source
        self._load = load
        self._watch = watch
        self._line = [_Installed(policy, version)]
        self._history = History()
        self._newest = version or 0
        self._alarm = ""
        self._risk = RiskLevel.GREEN
        self._changes: list[PolicyChanged] = []
        self._told: OrderedDict[PolicyUpdate, None] = OrderedDict()

    @property
    def version(self) -> int | None:
        """Of the policy that decides."""
        return self._line[-1].version

    def decide(self, state: SystemState) -> list[Choice]:
        """What the newest policy that keeps its promises chooses."""
        self._history.leave(state)
        if self._alarm:
            self._take_out(state, self._alarm)
        if self._risk < _BAD:
            self._renew(state)
        choices = self._ask(state)
        self._history.take(state)
        self._line[-1].seen = self._history.num_seen
        return choices

    def heed(self, risk: Risk) -> None:
        """Take in the risk, before a boundary is decided or after it."""
        self._risk = risk.level
        newest = self._line[-1]
        boundaries = self._history.num_seen - newest.since
        if newest.update is not None and risk.level >= _BAD and boundaries <= self._watch:
            why = f": {risk.reason}" if risk.reason else ""
            self._alarm = f"risk {risk.level.name} {boundaries} boundaries after it came{why}"

    def changes(self) -> list[PolicyChanged]:
        """What was installed, refused and rolled back since this was last asked, in this order."""
        changes, self._changes = self._changes, []
        return changes

    def candidates(self, state: SystemState) -> list[Choice]:
        """What the policy that decides may plant next."""
        newest = self._line[-1]
        if newest.update is None:
            return newest.policy.candidates(state)
        try:
            with undisturbed_random():
                named = newest.policy.candidates(state)
                return [each for each in named if each.kind is CommandKind.GERMINATE]
        except Exception as error:  # pylint: disable=broad-exception-caught
            self._alarm = f"asked for candidates, it raised {error!r}"
            return []

    def distrust(self) -> str:
        """What the run's own policy says, or the source."""
        return self._line[0].policy.distrust() or self._source.distrust()

    def close(self) -> None:
        """Let go of the source, and all policies of what they hold."""
        self._source.close()
        for each in self._line:
            each.policy.close()

    # -- newer ones -------------------------------------------------------------------------------

    def _renew(self, state: SystemState) -> None:
        """Install the highest of what came that proves itself."""
        offered = self._source.poll()
        refusals = [(0, reason) for reason in self._source.refusals()]
        for version, rivals in self._best(offered, refusals):
            self._newest = max(self._newest, version)
            if len(rivals) > 1:
                self._remember(*rivals)
                refusals.append((version, f"{len(rivals)} different ones have its version"))
                continue
            try:
                policy = self._tried(rivals[0])
            except Exception as error:  # pylint: disable=broad-exception-caught
                refusals.append((version, _words(error)))
                self._remember(rivals[0])
            else:
                self._install(policy, rivals[0], state)
                break
        for version, reason in _bounded(refusals):
            log.warning("a policy was refused: %s", reason)
            self._note(state, PolicyStep.REFUSED, self.version, version, reason)

    def _best(
        self, offered: Sequence[PolicyUpdate], refusals: list[tuple[int, str]]
    ) -> list[tuple[int, list[PolicyUpdate]]]:
        """The highest versions that may be looked at, descending, each with what claims to be it.

        Why others may not is added to ``refusals``.
        """
        fitting: dict[int, dict[str, PolicyUpdate]] = {}
        for update in offered:
            if update.name != self.name:
                why = f"it is of the policy {update.name[:80]!r}; {self.name!r} decides here"
            elif update.version <= self._newest:
                why = f"it is version {update.version}; {self._newest} was here already"
            else:
                fitting.setdefault(update.version, {})[update.digest] = update
                continue
            if update not in self._told and update != self._line[-1].update:
                self._remember(update)
                refusals.append((update.version, why))
        best = sorted(fitting.items(), reverse=True)[:MAX_LOOKS]
        return [(version, list(rivals.values())) for version, rivals in best]

    def _tried(self, update: PolicyUpdate) -> Policy:
        """The policy of an update, which has decided on what is kept of this run.

        Raises:
            Exception: whatever is wrong with it.
        """
        with undisturbed_random():
            policy = self._load(update)
            try:
                if policy.name != self.name:
                    raise PolicyRefused(f"what was loaded is the policy {policy.name!r}")
                for seen in self._history.since(0):
                    try:
                        checked(policy.decide(seen), seen)
                    except Exception as error:
                        raise PolicyRefused(
                            f"on trial, at epoch {seen.epoch}: {_words(error)}"
                        ) from error
                memory = encode(policy.state_dict())
                policy.load_state_dict(decode(memory, dict[str, Any], what="its memory"))
            except Exception:
                _close(policy)
                raise
        return policy

    def _install(self, policy: Policy, update: PolicyUpdate, state: SystemState) -> None:
        num_seen, before = self._history.num_seen, self.version
        self._line.append(_Installed(policy, update.version, update, num_seen, num_seen))
        if len(self._line) > KEPT:
            _close(self._line.pop(1).policy)
        log.info("version %d of the policy %r decides from here on", update.version, self.name)
        self._note(state, PolicyStep.INSTALLED, before, update.version, update.reason)

    # -- the one that decides ---------------------------------------------------------------------

    def _ask(self, state: SystemState) -> list[Choice]:
        while (newest := self._line[-1]).update is not None:
            try:
                with undisturbed_random():
                    choices = checked(self._decided(newest, state), state)
                return [
                    msgspec.structs.replace(each, policy_version=newest.version) for each in choices
                ]
            except Exception as error:  # pylint: disable=broad-exception-caught
                self._take_out(state, _words(error))
        return self._decided(newest, state)

    def _decided(self, installed: _Installed, state: SystemState) -> list[Choice]:
        """What it chooses, once it has seen what it has missed."""
        for missed in self._history.since(installed.seen):
            installed.policy.decide(missed)
        installed.seen = self._history.num_seen
        return installed.policy.decide(state)

    def _take_out(self, state: SystemState, reason: str) -> None:
        out = self._line.pop()
        assert out.version is not None
        assert out.update is not None
        self._alarm = ""
        self._remember(out.update)
        _close(out.policy)
        log.warning("version %d of the policy %r was taken out: %s", out.version, self.name, reason)
        self._note(state, PolicyStep.ROLLED_BACK, out.version, out.version, reason)

    def _note(
        self, state: SystemState, step: PolicyStep, before: int | None, offered: int, reason: str
    ) -> None:
        self._changes.append(
            PolicyChanged(
                run_id=state.run_id,
                epoch=state.epoch,
                policy=self.name,
                step=step,
                before=before,
                after=self.version,
                offered=offered,
                reason=reason[:MAX_REASON],
            )
        )

    def _remember(self, *updates: PolicyUpdate) -> None:
        self._told.update(dict.fromkeys(updates))
        while len(self._told) > MAX_REMEMBERED:
            self._told.popitem(last=False)

    # -- resuming ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Which policies decide or may again, what they remember, and what they were tried on."""
        saved = _Saved(
            policies=[
                _SavedPolicy(
                    update=each.update,
                    since=each.since,
                    seen=each.seen,
                    state=each.policy.state_dict(),
                )
                for each in self._line
            ],
            newest=self._newest,
            alarm=self._alarm,
            risk=self._risk,
            position=self._source.position(),
            num_seen=self._history.num_seen,
            history=self._history.since(0),
        )
        told: dict[str, Any] = msgspec.to_builtins(saved)
        return told

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the same policies: those that were installed are loaded again.

        One that decides no more and cannot be loaded is left out.

        Raises:
            InvalidArgument: ``state`` is not what this policy saved; nothing was changed.
            PolicyRefused: the one that decided cannot be loaded; nothing was changed.
        """
        saved = restore(_Saved, state, policy=self.name)
        if [each.update is None for each in saved.policies] != _own_first(saved.policies):
            raise InvalidArgument(
                f"this is not a saved state of the policy {self.name!r}: the run's own, which has "
                "no update, stands first and no other is without"
            )
        own, *later = saved.policies
        line = [_Installed(self._line[0].policy, self._line[0].version, None, own.since, own.seen)]
        for each in later:
            try:
                line.append(self._again(each))
            except Exception as error:  # pylint: disable=broad-exception-caught
                if each is later[-1]:
                    raise PolicyRefused(
                        f"{_named(each)} of the policy {self.name!r} decided when this was saved, "
                        f"and cannot be loaded: {_words(error)}; bring it back, or resume with a "
                        "fixed policy"
                    ) from error
                log.warning("%s cannot be gone back to: %s", _named(each), _words(error))
        line[0].policy.load_state_dict(own.state)
        for gone in self._line[1:]:
            _close(gone.policy)
        self._line = line
        self._newest, self._alarm, self._risk = saved.newest, saved.alarm, saved.risk
        self._history = History(saved.history, num_seen=saved.num_seen)
        self._source.continue_from(saved.position)

    def _again(self, saved: _SavedPolicy) -> _Installed:
        assert saved.update is not None
        with undisturbed_random():
            policy = self._load(saved.update)
            policy.load_state_dict(saved.state)
        return _Installed(policy, saved.update.version, saved.update, saved.since, saved.seen)


def _own_first(policies: list[_SavedPolicy]) -> list[bool]:
    return [True, *[False] * (len(policies) - 1)]


def _named(saved: _SavedPolicy) -> str:
    assert saved.update is not None
    return f"version {saved.update.version}"


def _close(policy: Policy) -> None:
    """Let it go; what it says to that no longer matters."""
    with suppress(Exception):
        policy.close()


def _words(error: Exception) -> str:
    """What went wrong; of an error that is not of this project, with its type."""
    return str(error) if isinstance(error, PolicyRefused) else f"{type(error).__name__}: {error}"


def _bounded(refusals: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """The first ones, and how many more there were."""
    rest = refusals[MAX_TOLD:]
    if not rest:
        return refusals
    highest = max(version for version, _ in rest)
    more = (highest, f"and {len(rest)} more, the last of them: {rest[-1][1]}")
    return [*refusals[:MAX_TOLD], more]
