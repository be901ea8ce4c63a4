"""Policies whose conduct is written in plain data, good or bad, and where they come from."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from growing_run import slot, state

from esper_lightning.leyline import (
    CommandKind,
    DecodeError,
    InvalidArgument,
    PolicyChanged,
    PolicyStep,
    PolicyUpdate,
    SeedStage,
    SystemState,
)
from esper_lightning.tamiyo import Choice, Policy
from esper_lightning.tamiyo.policy import restore
from esper_lightning.tamiyo.reload import Reloading, Source

NAME = "scripted"
MANY = 1000
"""More boundaries than any of these tests has."""


def at(epoch: int, **values: Any) -> SystemState:
    """A boundary with a free slot, one with a seed on trial, and one where nothing can be done."""
    return state(
        slot("a", quarantined=("loud",)),
        slot("b", SeedStage.PROBATIONARY),
        slot("c", SeedStage.TERMINATED),
        epoch=epoch,
        **({"max_epochs": MANY} | values),
    )


def wait(**values: Any) -> Choice:
    return Choice(kind=CommandKind.NOOP, reason="it waits", **values)


def cull(where: str = "b", **values: Any) -> Choice:
    return Choice(kind=CommandKind.CULL, slot=where, reason="it pays", **values)


def plant(where: str = "a", blueprint: str = "around") -> Choice:
    return Choice(kind=CommandKind.GERMINATE, slot=where, blueprint=blueprint, reason="it may pay")


def _raise(error: Exception) -> Any:
    raise error


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "raises": (lambda: _raise(ZeroDivisionError("by nothing")), "ZeroDivisionError: by nothing"),
    "runs out of stack": (lambda: _raise(RecursionError("too deep")), "RecursionError"),
    "returns nothing": (lambda: None, "NoneType instead of a list"),
    "returns a choice alone": (wait, "Choice instead of a list"),
    "an empty list": (list, "it decided nothing"),
    "only what is refused": (lambda: [cull(refused="too dear")], "it decided nothing"),
    "text": (lambda: ["cull b"], "str instead of a choice"),
    "a slot that is not there": (lambda: [cull("z")], "in slot 'z'; there are: a, b, c"),
    "an illegal kind": (lambda: [cull("a")], "CULL in slot 'a', which is DORMANT; legal: GERM"),
    "a slot at its end": (lambda: [plant("c")], "GERMINATE in slot 'c', which is TERMINATED"),
    "twice in a slot": (lambda: [cull(), cull()], "twice about slot 'b'"),
    "behind a NOOP": (lambda: [wait(), cull()], "behind a NOOP"),
    "two NOOPs": (lambda: [wait(), wait()], "behind a NOOP"),
    "a rollback": (
        lambda: [Choice(kind=CommandKind.ROLLBACK, reason="back")],
        "ROLLBACK, which is not for a policy",
    ),
    "what is quarantined": (lambda: [plant("a", "loud")], "'loud' in slot 'a', where that is"),
    "value NaN": (lambda: [wait(value=math.nan)], "value of its choice is nan"),
    "value infinite": (lambda: [cull(value=math.inf)], "value of its choice is inf"),
    "log-probability NaN": (lambda: [wait(log_probability=math.nan)], "log_probability"),
    "log-probability of nothing": (lambda: [cull(log_probability=-math.inf)], "is -inf"),
    "share NaN": (lambda: [wait(share=math.nan)], "share of its choice is nan"),
    "value in words": (lambda: [wait(value="high")], "a field of its choice cannot be"),
    "kind in words": (
        lambda: [Choice(kind="cull", slot="b", reason="?")],
        "kind of its choice is 'cull'",
    ),
    "parameters that are none": (lambda: [wait(parameters={"rank": [1]})], "parameters"),
    "a number without end": (lambda: [wait(value=10**400)], "OverflowError|cannot be"),
}
"""By name: what it returns or raises, and what is said about it."""

GOOD: dict[str, Callable[[], list[Choice]]] = {
    "waits": lambda: [wait(value=0.5, log_probability=-0.1)],
    "culls": lambda: [cull()],
    "plants": lambda: [plant()],
    "does both": lambda: [plant(), cull(log_probability=-2.0)],
    "ends with a NOOP": lambda: [plant(), wait()],
    "records more": lambda: [cull(), cull("a", refused="too dear")],
}


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """What a scripted policy does.

    Attributes:
        mark: stands in its reasons.
        does: a key of ``GOOD`` or ``BAD``, from epoch ``since`` on; before, it waits.
        name: of the policy.
        offers: whether it can be asked for candidates.
    """

    mark: str
    does: str = "waits"
    since: int = 0
    name: str = NAME
    offers: bool = True


class _Memory(msgspec.Struct, forbid_unknown_fields=True):
    epochs: list[int]


class Scripted(Policy):
    """Follows a script. Its reasons tell all the epochs that it has decided on."""

    name = NAME

    def __init__(self, script: Script) -> None:
        vars(self)["name"] = script.name
        self.script = script
        self.epochs: list[int] = []
        self.closed = False

    def decide(self, state: SystemState) -> list[Choice]:
        self.epochs.append(state.epoch)
        does = self.script.does if state.epoch >= self.script.since else "waits"
        if does in BAD:
            return BAD[does][0]()
        reason = f"{self.script.mark} saw {','.join(map(str, self.epochs))}"
        return [msgspec.structs.replace(each, reason=reason) for each in GOOD[does]()]

    def candidates(self, state: SystemState) -> list[Choice]:
        if not self.script.offers:
            raise LookupError("nothing to offer")
        return [plant()]

    def close(self) -> None:
        self.closed = True

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": list(self.epochs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epochs = restore(_Memory, state, policy=self.name).epochs


def data_of(script: Script) -> bytes:
    return msgspec.json.encode(script)


def make(data: bytes) -> Scripted:
    """A policy from what :func:`data_of` made."""
    try:
        script = msgspec.json.decode(data, type=Script)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"this is no script: {error}") from error
    if script.does not in GOOD.keys() | BAD.keys():
        raise InvalidArgument(f"nobody knows how to do {script.does!r}")
    return Scripted(script)


class Shelf(Source):
    """Updates, and the policies they are of.

    Attributes:
        loaded: every policy that was built, in order.
    """

    def __init__(self) -> None:
        self.loaded: list[Scripted] = []
        self._contents: dict[str, bytes] = {}
        self._offered: list[PolicyUpdate] = []

    def offer(self, version: int, script: Script | None, *, name: str = NAME) -> PolicyUpdate:
        """Offer a version; one that is not on the shelf without a script."""
        data = b"" if script is None else data_of(script)
        digest = hashlib.sha256(data).hexdigest()
        if script is not None:
            self._contents[digest] = data
        update = PolicyUpdate(
            name=name, version=version, digest=digest, reference=f"{name}@{version}", reason="new"
        )
        self._offered.append(update)
        return update

    def offer_again(self, *updates: PolicyUpdate) -> None:
        self._offered += updates

    def poll(self) -> list[PolicyUpdate]:
        offered, self._offered = self._offered, []
        return offered

    def load(self, update: PolicyUpdate) -> Policy:
        self.loaded.append(make(self._contents[update.digest]))
        return self.loaded[-1]


def reloading(shelf: Shelf, *, does: str = "waits", **options: Any) -> Reloading:
    own = Scripted(Script(mark="own", does=does))
    return Reloading(own, source=shelf, load=shelf.load, **options)


def run(policy: Reloading, epochs: range) -> list[str]:
    """Who decided, by its mark."""
    return [marks(policy.decide(at(epoch))) for epoch in epochs]


def marks(choices: list[Choice]) -> str:
    return choices[0].reason.split()[0]


def told(changes: list[PolicyChanged]) -> list[tuple[int, str, int]]:
    """Epoch, what happened, and to which version."""
    return [(each.epoch, PolicyStep(each.step).value, each.offered) for each in changes]


def saved(policy: Reloading) -> dict[str, Any]:
    """What a checkpoint would hold, as it comes back from one."""
    text: dict[str, Any] = json.loads(json.dumps(policy.state_dict()))
    return text
