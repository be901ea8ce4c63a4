"""Every message survives the wire, whose bytes stay; nothing else is taken for a message."""

import random
import typing
from typing import Any

import msgspec
import pytest
from drawn_messages import full, values
from golden_bytes import EARLIER, GOLDEN
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esper_lightning.leyline import (
    MESSAGES,
    CommandKind,
    DecodeError,
    EventEnvelope,
    FieldReport,
    InvalidArgument,
    Objective,
    PolicyUpdate,
    Question,
    RunEnded,
    SystemState,
    TelemetryPacket,
    encode,
    pack,
    unpack,
)
from esper_lightning.leyline.wire import MAX_PACKED_BYTES

KINDS = {**MESSAGES, "envelope": EventEnvelope}

each_kind = pytest.mark.parametrize("kind", KINDS)


def structs(hint: Any) -> set[type[msgspec.Struct]]:
    """Every Struct that a value of type ``hint`` may hold."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return {hint}.union(*(structs(each) for each in typing.get_type_hints(hint).values()))
    return set().union(*(structs(each) for each in typing.get_args(hint)))


def fields(kind: type[msgspec.Struct]) -> list[msgspec.structs.FieldInfo | None]:
    """By position; None where the tag is."""
    tag: list[None] = [None] if kind.__struct_config__.tag else []
    return [*tag, *msgspec.structs.fields(kind)]


def raw(message: msgspec.Struct) -> list[Any]:
    """The message as it travels, as builtins."""
    found = msgspec.msgpack.decode(pack(message))
    assert isinstance(found, list)
    return found


def wire(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


# What travels


def test_a_message_bears_the_name_of_its_kind() -> None:
    assert {kind: type_.__struct_config__.tag for kind, type_ in MESSAGES.items()} == {
        kind: kind for kind in MESSAGES
    }
    for kind, type_ in MESSAGES.items():
        assert raw(full(type_))[0] == kind


@each_kind
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_message_survives_the_wire(kind: str, data: st.DataObject) -> None:
    message = data.draw(values(KINDS[kind]))
    again = unpack(pack(message), KINDS[kind])
    assert type(again) is KINDS[kind]
    assert again == message
    assert encode(again) == encode(message)


@each_kind
def test_the_bytes_of_a_message_are_those_of_every_release(kind: str) -> None:
    """Where this fails, what earlier releases sent can no longer be read, nor can they read this.

    A definition may grow at its end, with fields that have defaults: then add them to the bytes.
    """
    message = full(KINDS[kind])
    assert pack(message).hex() == "".join(GOLDEN[kind].split())
    assert unpack(bytes.fromhex(GOLDEN[kind]), KINDS[kind]) == message


@pytest.mark.parametrize("kind", EARLIER)
def test_what_an_earlier_release_sent_can_still_be_read(kind: str) -> None:
    sent = bytes.fromhex(EARLIER[kind])
    message, now = unpack(sent, KINDS[kind]), full(KINDS[kind])
    values = msgspec.msgpack.decode(sent)
    assert len(values) < len(raw(now)) or kind in ("question", "answer")  # grown within
    for field in fields(KINDS[kind])[: len(values)]:
        if field is not None and field.name not in ("state", "choices"):
            assert getattr(message, field.name) == getattr(now, field.name)


@each_kind
def test_the_wire_is_smaller_than_a_file(kind: str) -> None:
    message = full(KINDS[kind])
    assert len(pack(message)) < len(encode(message))


def test_types_are_kept_where_several_are_allowed() -> None:
    command = msgspec.structs.replace(
        full(MESSAGES["decision"]).command,
        parameters={"width": 8, "bias": True, "scale": 8.0, "norm": "group"},
    )
    again = unpack(pack(command), type(command))
    assert {name: type(value) for name, value in again.parameters.items()} == {
        "width": int,
        "bias": bool,
        "scale": float,
        "norm": str,
    }


def test_what_is_missing_stays_missing_and_what_is_not_a_number_stays_that() -> None:
    assert unpack(pack(Objective(name="a")), Objective).value is None
    infinite = Objective(name="a", value=float("-inf"))
    assert unpack(pack(infinite), Objective) == infinite
    value = unpack(pack(Objective(name="a", value=float("nan"))), Objective).value
    assert value is not None
    assert value != value


# Other releases


@each_kind
def test_a_message_of_a_later_release_can_be_read(kind: str) -> None:
    message = full(KINDS[kind])
    assert unpack(wire([*raw(message), 1, [{"x": None}], "more"]), KINDS[kind]) == message


def test_a_part_of_a_later_release_can_be_read() -> None:
    state = full(SystemState)
    message = raw(state)
    message[6].append("more")
    message[8][0].extend([1, {"x": None}])
    assert unpack(wire(message), SystemState) == state


@each_kind
def test_a_message_of_an_earlier_release_can_be_read(kind: str) -> None:
    """It ends before the fields that came later, which have their defaults then."""
    type_ = KINDS[kind]
    message = full(type_)
    by_position, cut = fields(type_), raw(message)
    while (field := by_position.pop()) is not None and not field.required:
        cut.pop()
        factory = field.default_factory
        default = factory() if callable(factory) else field.default
        message = msgspec.structs.replace(message, **{field.name: default})
        assert unpack(wire(cut), type_) == message


# What is no message


@each_kind
def test_every_truncation_is_rejected(kind: str) -> None:
    data = pack(full(KINDS[kind]))
    for length in range(len(data)):
        with pytest.raises(DecodeError, match=f"{kind} is not complete msgpack: .*truncated"):
            unpack(data[:length], KINDS[kind], what=kind)


@each_kind
def test_what_follows_a_message_is_rejected(kind: str) -> None:
    with pytest.raises(DecodeError, match="not complete msgpack: .*trailing"):
        unpack(pack(full(KINDS[kind])) + b"\0", KINDS[kind])


@each_kind
def test_a_missing_field_is_named(kind: str) -> None:
    message = raw(full(KINDS[kind]))
    for position, field in enumerate(fields(KINDS[kind])):
        if field is not None and field.required:
            with pytest.raises(DecodeError, match=f"missing required field `{field.name}`"):
                unpack(wire(message[:position]), KINDS[kind])


@each_kind
def test_a_field_of_a_wrong_type_is_named(kind: str) -> None:
    message = raw(full(KINDS[kind]))
    for position, field in enumerate(fields(KINDS[kind])):
        name = "type" if field is None else field.name
        wrong = [*message]
        wrong[position] = [{"neither": "this"}, 0.5]
        with pytest.raises(DecodeError, match=rf"{kind} is not valid: .*`\$\.{name}\b"):
            unpack(wire(wrong), KINDS[kind], what=kind)


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_message_of_another_kind_is_rejected(kind: str) -> None:
    for other, type_ in MESSAGES.items():
        if other != kind:
            with pytest.raises(DecodeError, match=rf"Invalid value '{other}' - at `\$\.type`"):
                unpack(pack(full(type_)), MESSAGES[kind])


@pytest.mark.parametrize(
    ("kind", "path", "value", "says"),
    [
        ("state", [2], 1.5, r"Expected `int`, got `float` - at `\$\.epoch`"),
        (
            "state",
            [6, 2],
            "0.3",
            r"Expected `float \| null`, got `str` - at `\$\.objective\.value`",
        ),
        ("state", [8, 0, 1], 12, r"Invalid enum value 12 - at `\$\.slots\[0\]\.stage`"),
        (
            "state",
            [8, 0, 18, 1, 0, 2],
            ">",
            r"'>' - at `\$\.slots\[0\]\.gate\.measurements\[0\]\.c",
        ),
        ("state", [8, 0, 5, 1, 1], [3], r"2 positive sizes.*`\$\.slots\[0\]\.shape\.output`"),
        ("decision", [4, 2], "explode", r"Invalid enum value 'explode' - at `\$\.command\.kind`"),
        ("decision", [4, 7, 1], 0, r"at least 1, got 0 - at `\$\.command\.blend`"),
        ("telemetry", [4], {"a": None}, r"Expected `float`, got `null` - at `\$\.values\[...\]`"),
        ("telemetry", [4], {1: 0.5}, r"Expected `str`, got `int` - at `key` in `\$\.values`"),
        ("report", [8], 3, r"ends no earlier than it begins, got epochs 8 to 3"),
        ("report", [9], "great", r"Invalid enum value 'great' - at `\$\.outcome`"),
        ("policy", [2], 0, r"version of a policy must be a whole number of at least 1, got 0"),
        ("policy", [3], "0" * 63, r"64 lower-case hexadecimal digits, got '000"),
        ("policy", [3], "A" * 64, r"64 lower-case hexadecimal digits, got 'AAA"),
        ("alert", [3], "whatever", r"Invalid enum value 'whatever' - at `\$\.severity`"),
        ("question", [4], float("nan"), r"finite and more than 0 seconds, got nan"),
        ("question", [4], float("inf"), r"finite and more than 0 seconds, got inf"),
        ("question", [4], 0, r"finite and more than 0 seconds, got 0"),
        ("question", [5, 8, 0, 0], None, r"got `null` - at `\$\.state\.slots\[0\]\.slot`"),
        ("answer", [6, 0, 0], "wait", r"'wait' - at `\$\.choices\[0\]\.kind`"),
        ("envelope", [3], 4, r"Invalid enum value 4 - at `\$\.priority`"),
        ("envelope", [8], "text", r"Expected `bytes`, got `str` - at `\$\.payload`"),
    ],
)
def test_what_is_wrong_is_said(kind: str, path: list[int], value: object, says: str) -> None:
    message = raw(full(KINDS[kind]))
    inner = message
    for position in path[:-1]:
        inner = inner[position]
    inner[path[-1]] = value
    with pytest.raises(DecodeError, match=f"line 7 is not valid: .*{says}"):
        unpack(wire(message), KINDS[kind], what="line 7")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xc0", b"\x90", b"\x80", b"\xc1", b"\xff", b"{}", b"\xa9run_ended",
        b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
        b"\x91" * 100_000,
        b"\x95\xa9run_ended\xa1\xff\x00\x00\xa1x", b"\x92\xa9run_ended\xd4\x01\x00",
    ],
)  # fmt: skip
def test_bytes_that_are_no_message_are_rejected(data: bytes) -> None:
    with pytest.raises(DecodeError, match="event is not"):
        unpack(data, RunEnded, what="event")


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=80))
def test_noise_is_rejected_with_one_kind_of_error(data: bytes) -> None:
    for kind in MESSAGES.values():
        with pytest.raises(DecodeError):
            unpack(data, kind)


@each_kind
def test_a_damaged_message_is_rejected_or_is_another_of_its_kind(kind: str) -> None:
    draw = random.Random(kind)
    intact = pack(full(KINDS[kind]))
    for _ in range(1000):
        data = bytearray(intact)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        try:
            again = unpack(bytes(data), KINDS[kind])
        except DecodeError:
            continue
        assert type(again) is KINDS[kind]
        assert unpack(pack(again), KINDS[kind]).__class__ is KINDS[kind]


def test_a_message_that_is_too_large_is_rejected_before_it_is_read() -> None:
    packet = TelemetryPacket(run_id="r", epoch=0, step=1, labels={"a": ""})
    rest = MAX_PACKED_BYTES - len(pack(packet)) - 4
    fits = pack(msgspec.structs.replace(packet, labels={"a": "x" * rest}))
    assert len(fits) == MAX_PACKED_BYTES
    assert unpack(fits, TelemetryPacket).labels["a"] == "x" * rest
    told = f"packet has {MAX_PACKED_BYTES + 1} bytes; at most {MAX_PACKED_BYTES} are read"
    with pytest.raises(DecodeError, match=told):
        unpack(fits + b"\0", TelemetryPacket, what="packet")


# What cannot be packed


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epoch": "3"}, r"Expected `int`, got `str` - at `\$\.epoch`"),
        ({"epoch": None}, r"Expected `int`, got `null` - at `\$\.epoch`"),
        ({"epoch": 2**64}, r"ints"),
        ({"run_id": "\ud800"}, r"surrogates not allowed"),
        ({"values": {"loss": "low"}}, r"Expected `float`, got `str` - at `\$\.values\[...\]`"),
        ({"values": [1.0]}, r"Expected `object`, got `array` - at `\$\.values`"),
    ],
)
def test_a_message_with_a_wrong_value_is_not_packed(change: dict[str, Any], says: str) -> None:
    packet = TelemetryPacket(run_id="r", epoch=0, step=1, values={"loss": 1.0})
    with pytest.raises(InvalidArgument, match=f"TelemetryPacket cannot be packed: .*{says}"):
        pack(msgspec.structs.replace(packet, **change))


@pytest.mark.parametrize("value", [None, 3, b"x", [1], {"a": 1}, CommandKind.NOOP])
def test_what_is_no_message_is_neither_packed_nor_read(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="is no message; what is packed is a Struct"):
        pack(value)
    with pytest.raises(InvalidArgument, match="is no message; what is packed is a Struct"):
        unpack(b"\xc0", type(value))


# What reports and questions refuse


def test_a_report_has_a_window() -> None:
    report = msgspec.structs.asdict(full(FieldReport))
    assert FieldReport(**{**report, "first_epoch": 3, "last_epoch": 3}).last_epoch == 3
    with pytest.raises(InvalidArgument, match="got epochs 3 to 2"):
        FieldReport(**{**report, "first_epoch": 3, "last_epoch": 2})


@pytest.mark.parametrize(
    "change", [{"version": 0}, {"version": True}, {"digest": ""}, {"digest": "0g" * 32}], ids=str
)
def test_a_policy_has_a_version_and_a_digest(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="of a policy"):
        PolicyUpdate(**{**msgspec.structs.asdict(full(PolicyUpdate)), **change})


@pytest.mark.parametrize("deadline_s", [0, -1.0, float("nan"), float("inf"), "soon", None])
def test_a_question_has_a_deadline(deadline_s: Any) -> None:
    with pytest.raises(InvalidArgument, match="deadline_s of a question"):
        Question(run_id="r", attempt="1", epoch=0, deadline_s=deadline_s, state=full(SystemState))
