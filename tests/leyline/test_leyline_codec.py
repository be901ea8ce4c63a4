"""Every message survives its own JSON, and nothing else is taken for one."""

import typing

import msgspec
import pytest
from drawn_messages import first_of, values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esper_lightning import leyline
from esper_lightning.leyline import (
    AdaptationCommand,
    BlendSchedule,
    CommandKind,
    DecodeError,
    Event,
    RunEnded,
    RunStarted,
    SeedStage,
    StageChanged,
    SystemState,
    decode,
    encode,
    pretty,
)
from esper_lightning.leyline.codec import MAX_MESSAGE_BYTES

MESSAGES = [
    value
    for value in (getattr(leyline, name) for name in leyline.__all__)
    if isinstance(value, type) and issubclass(value, msgspec.Struct)
]
EVENTS = typing.get_args(Event)


def started() -> RunStarted:
    return RunStarted(
        run_id="r1", slots=("a", "b"), host_parameters=10, max_epochs=None, versions={"torch": "2"}
    )


def changed() -> StageChanged:
    return StageChanged(
        run_id="r1",
        epoch=3,
        step=40,
        slot="features.1",
        before=SeedStage.TRAINING,
        after=SeedStage.BLENDING,
        parameters={"width": 8, "bias": True, "scale": 0.5, "norm": "group"},
    )


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_message_survives_its_own_json(
    kind: type[msgspec.Struct], data: st.DataObject
) -> None:
    message = data.draw(values(kind))
    encoded = encode(message)
    again: msgspec.Struct = decode(encoded, kind)
    assert again == message
    assert encode(again) == encoded
    assert decode(pretty(message), kind) == message


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_an_event_says_of_itself_which_it_is(
    kind: type[msgspec.Struct], data: st.DataObject
) -> None:
    message = data.draw(values(kind))
    again: msgspec.Struct = decode(encode(message), Event)
    assert type(again) is kind
    assert again == message


def test_the_types_of_parameters_are_kept() -> None:
    again: msgspec.Struct = decode(encode(changed()), Event)
    assert isinstance(again, StageChanged)
    assert {k: type(v) for k, v in again.parameters.items()} == {
        "width": int,
        "bias": bool,
        "scale": float,
        "norm": str,
    }


def test_an_event_is_one_line_and_does_not_depend_on_the_order_of_a_mapping() -> None:
    one = encode(msgspec.structs.replace(started(), versions={"a": "1", "b": "2"}))
    other = encode(msgspec.structs.replace(started(), versions={"b": "2", "a": "1"}))
    assert one == other
    assert b"\n" not in one
    assert pretty(started()).count(b"\n") > 5
    assert pretty(started()).endswith(b"}\n")


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_a_missing_field_is_named(kind: type[msgspec.Struct]) -> None:
    message = first_of(kind)
    for name in (field.name for field in msgspec.structs.fields(kind) if field.required):
        data = {k: v for k, v in message.items() if k != name}
        with pytest.raises(DecodeError, match=f"missing required field `{name}`"):
            decode(msgspec.json.encode(data), kind)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_a_field_of_a_wrong_type_is_named(kind: type[msgspec.Struct]) -> None:
    message = first_of(kind)
    for field in msgspec.structs.fields(kind):
        data = {**message, field.name: [{"neither": "this"}, 0.5]}
        with pytest.raises(DecodeError, match=rf"`\$\.{field.name}"):
            decode(msgspec.json.encode(data), kind)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("before", 12, r"Invalid enum value 12 - at `\$\.before`"),
        ("before", "TRAINING", r"Expected `int`, got `str` - at `\$\.before`"),
        ("epoch", 1.5, r"Expected `int`, got `float` - at `\$\.epoch`"),
        ("epoch", None, r"Expected `int`, got `null` - at `\$\.epoch`"),
        ("slot", 3, r"Expected `str`, got `int` - at `\$\.slot`"),
        ("type", "stage_changes", r"Invalid value 'stage_changes' - at `\$\.type`"),
    ],
)
def test_what_is_wrong_with_an_event_is_said(field: str, value: object, says: str) -> None:
    data = {**msgspec.json.decode(encode(changed())), field: value}
    with pytest.raises(DecodeError, match=f"line 7 is not valid: .*{says}"):
        decode(msgspec.json.encode(data), Event, what="line 7")


def test_an_unknown_command_is_rejected_where_it_is_nested() -> None:
    command = AdaptationCommand(id="1", run_id="r", kind=CommandKind.CULL, slot="a")
    decision = leyline.Decision(run_id="r", epoch=0, policy="p", command=command)
    data = encode(decision).replace(b'"cull"', b'"explode"')
    with pytest.raises(DecodeError, match=r"Invalid enum value 'explode' - at `\$\.command\.kind`"):
        decode(data, Event)


@pytest.mark.parametrize("message", [started(), changed()], ids=["RunStarted", "StageChanged"])
def test_every_truncation_is_rejected(message: msgspec.Struct) -> None:
    encoded = encode(message)
    for length in range(len(encoded)):
        with pytest.raises(DecodeError, match="event is not complete JSON"):
            decode(encoded[:length], Event, what="event")


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b"{}", b"{}{}", b"\xff\xfe", b'"run_ended"', b"{'a': 1}", b"NaN"]
)
def test_bytes_that_are_no_event_are_rejected(data: bytes) -> None:
    with pytest.raises(DecodeError, match="event is not"):
        decode(data, Event, what="event")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_noise_is_rejected_with_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(data, RunStarted)


def test_text_that_is_not_utf8_is_rejected() -> None:
    data = encode(RunEnded(run_id="~", epoch=0, step=0, outcome="finished")).replace(b"~", b"\xff")
    with pytest.raises(DecodeError, match="utf-8"):
        decode(data, RunEnded)


def test_json_that_is_nested_too_deeply_is_rejected() -> None:
    data = b'{"unknown":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(DecodeError, match="recursion"):
        decode(data, RunStarted)


def test_a_message_that_is_too_large_is_rejected_before_it_is_read() -> None:
    fits = encode(started()).ljust(MAX_MESSAGE_BYTES)
    assert decode(fits, RunStarted) == started()
    with pytest.raises(
        DecodeError,
        match=f"journal has {MAX_MESSAGE_BYTES + 1} bytes; at most {MAX_MESSAGE_BYTES}",
    ):
        decode(fits + b" ", RunStarted, what="journal")


def test_a_message_with_a_field_of_a_later_release_can_be_read() -> None:
    data = {**msgspec.json.decode(encode(started())), "a_later_field": [1, {"x": None}]}
    assert decode(msgspec.json.encode(data), Event) == started()


def test_values_that_break_a_rule_are_rejected_where_they_are() -> None:
    data = b'{"input": {"kind": "spatial", "sizes": [3, 8]}, "output": null}'
    with pytest.raises(DecodeError, match=r"spatial feature map has 3 positive sizes.*\$\.input"):
        decode(data, leyline.SlotShape)
    with pytest.raises(DecodeError, match="num_steps must be a whole number of at least 1, got 0"):
        decode(b'{"num_steps": 0}', BlendSchedule)


def test_what_is_missing_stays_missing_and_what_is_not_a_number_becomes_missing() -> None:
    objective = leyline.Objective(name="val/loss")
    assert decode(encode(objective), leyline.Objective).value is None
    for value in (float("nan"), float("inf"), float("-inf")):
        written = encode(leyline.Objective(name="val/loss", value=value))
        assert decode(written, leyline.Objective).value is None


def test_messages_are_immutable() -> None:
    for kind in MESSAGES:
        assert kind.__struct_config__.frozen, kind


def test_the_state_of_a_slot_is_found_by_its_path() -> None:
    slots = tuple(leyline.SeedState(slot=path, stage=SeedStage.DORMANT) for path in ("a", "b"))
    state = SystemState(
        run_id="r",
        epoch=0,
        max_epochs=1,
        global_step=1,
        steps_per_epoch=1,
        objective=leyline.Objective(name="val/loss"),
        metrics={},
        slots=slots,
        host_parameters=1,
        num_parameters=1,
    )
    assert state.slot("b") is slots[1]
    with pytest.raises(KeyError, match="c"):
        state.slot("c")
