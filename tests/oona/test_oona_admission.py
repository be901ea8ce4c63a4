import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from esper_lightning.leyline import (
    EventEnvelope,
    PolicyUpdate,
    Raised,
    RunEnded,
    Severity,
    Signer,
    TelemetryPacket,
    pack,
    seal,
)
from esper_lightning.oona import KINDS, ROUTES, Admission, Refusal, Refused, Role

SIGNER = Signer(b"a key of the tests, long enough")
ENDED = RunEnded(run_id="run", epoch=3, step=40, outcome="finished")
PACKET = TelemetryPacket(run_id="run", epoch=3, step=40, values={"step_seconds": 0.01})


def envelope(message: Any = ENDED, **changes: Any) -> EventEnvelope:
    fields = {
        "id": "0" * 32,
        "kind": KINDS[type(message)],
        "source": "run",
        "created_at": time.time(),
        "ttl_s": 3600.0,
        "payload": pack(message),
    }
    return EventEnvelope(**(fields | changes))


def sealed(message: Any = ENDED, *, role: Role = Role.NORMAL, **changes: Any) -> bytes:
    return seal(envelope(message, **changes), SIGNER, stream=role.value)


def update(version: int) -> PolicyUpdate:
    return PolicyUpdate(name="learned", version=version, digest="a" * 64, reference="learned@1")


def why(admission: Admission, role: Role, data: bytes | None, **options: Any) -> Refusal:
    with pytest.raises(Refused) as refused:
        admission.admit(role, data, **options)
    return refused.value.why


def test_every_kind_has_a_way() -> None:
    assert set(ROUTES) == set(KINDS.values())


def test_an_authentic_message_is_admitted() -> None:
    admission = Admission(SIGNER)
    received = admission.admit(Role.NORMAL, sealed())
    assert received.message == ENDED
    assert (admission.admitted, admission.refused.total()) == (1, 0)


REFUSED: dict[str, tuple[Refusal, Role, Callable[[], bytes | None]]] = {
    "no message": (Refusal.FORGED, Role.NORMAL, lambda: None),
    "empty": (Refusal.FORGED, Role.NORMAL, lambda: b""),
    "unsigned": (Refusal.FORGED, Role.NORMAL, lambda: pack(envelope())),
    "another key": (
        Refusal.FORGED,
        Role.NORMAL,
        lambda: seal(envelope(), Signer(b"another key, long enough"), stream="normal"),
    ),
    "moved to another stream": (Refusal.FORGED, Role.EMERGENCY, sealed),
    "signed for a stream of other kinds": (
        Refusal.WRONG_STREAM,
        Role.EMERGENCY,
        lambda: sealed(role=Role.EMERGENCY),
    ),
    "unknown kind": (Refusal.MALFORMED, Role.NORMAL, lambda: sealed(kind="spell")),
    "another kind's payload": (
        Refusal.MALFORMED,
        Role.NORMAL,
        lambda: sealed(payload=pack(PACKET)),
    ),
    "no payload": (Refusal.MALFORMED, Role.NORMAL, lambda: sealed(payload=b"")),
    "too old": (Refusal.STALE, Role.NORMAL, lambda: sealed(created_at=time.time() - 3700)),
    "older than its kind may be, whatever it says": (
        Refusal.STALE,
        Role.TELEMETRY,
        lambda: sealed(PACKET, role=Role.TELEMETRY, created_at=time.time() - 70, ttl_s=1e9),
    ),
    "from the future": (
        Refusal.FROM_THE_FUTURE,
        Role.NORMAL,
        lambda: sealed(created_at=time.time() + 90),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_not_act_is_refused_and_counted(case: str) -> None:
    expected, role, make = REFUSED[case]
    admission = Admission(SIGNER)
    assert why(admission, role, make()) is expected
    assert admission.refused == {expected: 1}
    assert admission.admitted == 0


def test_an_id_that_was_seen_is_refused_where_it_is_asked_for() -> None:
    admission = Admission(SIGNER)
    data = sealed()
    admission.admit(Role.NORMAL, data, remember=True)
    assert why(admission, Role.NORMAL, data, remember=True) is Refusal.REPLAYED
    admission.admit(Role.NORMAL, sealed(id="1" * 32), remember=True)


def test_policies_come_with_a_higher_version_only() -> None:
    versions = {"learned": 4}
    admission = Admission(SIGNER, versions=versions)

    def offered(version: int) -> bytes:
        return sealed(update(version), role=Role.POLICY)

    for version in (1, 4):
        assert why(admission, Role.POLICY, offered(version)) is Refusal.OLD_VERSION
    admission.admit(Role.POLICY, offered(5))
    admission.admit(Role.POLICY, offered(5))  # delivered again: it has not taken effect
    versions["learned"] = 5
    assert why(admission, Role.POLICY, offered(5)) is Refusal.OLD_VERSION


def test_a_key_is_replaced_without_losing_a_message() -> None:
    new = b"the next key of the tests"
    both = Signer(new, previous=[b"a key of the tests, long enough"])
    admission = Admission(both)
    admission.admit(Role.NORMAL, sealed())
    admission.admit(Role.NORMAL, seal(envelope(), both, stream="normal"))
    assert why(Admission(Signer(new)), Role.NORMAL, sealed()) is Refusal.FORGED


def test_the_third_forged_message_in_a_row_turns_on_conservative_mode() -> None:
    alerts: list[Refused] = []
    admission = Admission(SIGNER, on_forged=alerts.append)
    for data in (b"noise", b"noise", sealed(), b"noise", b"noise"):
        if data == b"noise":
            why(admission, Role.NORMAL, data)
        else:
            admission.admit(Role.NORMAL, data)
    assert not admission.is_conservative
    why(admission, Role.NORMAL, b"noise")
    assert admission.is_conservative
    assert len(alerts) == 5
    for _ in range(19):
        admission.admit(Role.NORMAL, sealed())
    assert admission.is_conservative
    admission.admit(Role.NORMAL, sealed())
    assert not admission.is_conservative


def test_stale_and_replayed_messages_are_nobody_s_forgery() -> None:
    admission = Admission(SIGNER)
    for _ in range(5):
        why(admission, Role.NORMAL, sealed(created_at=1.0))
    assert not admission.is_conservative


@pytest.mark.slow
def test_a_hundred_thousand_hostile_messages_change_nothing() -> None:
    """Flipped, truncated, extended, spliced, replayed, aged, forged, moved: none is admitted."""
    draw = random.Random(0)
    admission = Admission(SIGNER)
    good = [sealed(replace(ENDED, epoch=n), id=f"{n:032x}") for n in range(50)]
    alert = Raised(run_id="run", name="n", severity=Severity.WARNING, text="t")
    good.append(sealed(alert, role=Role.EMERGENCY, id="f" * 32))
    other = Signer(b"what an attacker would have")
    for data in good[:50]:
        admission.admit(Role.NORMAL, data, remember=True)
    admission.admit(Role.EMERGENCY, good[50], remember=True)

    def flipped(data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        return bytes(changed)

    def spliced(data: bytes) -> bytes:
        cut = draw.randrange(1, len(data))
        return data[:cut] + draw.choice(good)[cut:]

    attacks: list[Callable[[bytes], bytes]] = [
        flipped,
        spliced,
        lambda data: data[: draw.randrange(len(data))],
        lambda data: data + draw.randbytes(draw.randrange(1, 40)),
        lambda data: draw.randbytes(draw.randrange(0, 400)),
        lambda data: data,  # replayed, in any order
        lambda data: seal(envelope(id=f"{draw.getrandbits(128):032x}"), other, stream="normal"),
        lambda data: sealed(created_at=time.time() - 90_000, id=f"{draw.getrandbits(128):032x}"),
        lambda data: data[:1] + draw.randbytes(32) + data[33:],
    ]
    admitted, refused = admission.admitted, 0
    for _ in range(100_000):
        role = draw.choice(list(Role))
        data = draw.choice(attacks)(draw.choice(good))
        try:
            admission.admit(role, data, remember=True)
        except Refused:
            refused += 1
    assert refused == 100_000
    assert admission.admitted == admitted
