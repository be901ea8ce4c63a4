"""What messages refuse when they are made, and what they tell a reader."""

from typing import Any

import pytest

from esper_lightning.leyline import (
    AdaptationCommand,
    BlendCurve,
    BlendSchedule,
    CommandKind,
    FeatureKind,
    FeatureMap,
    InvalidArgument,
    SeedStage,
    SlotShape,
    StageChanged,
)


@pytest.mark.parametrize("curve", BlendCurve)
def test_a_curve_may_be_given_by_name(curve: BlendCurve) -> None:
    by_name: Any = curve.value
    assert BlendSchedule(curve=by_name).curve is curve
    assert BlendSchedule(curve=by_name) == BlendSchedule(curve=curve)


def test_an_unknown_curve_and_an_empty_ramp_are_refused() -> None:
    unknown: Any = "cubic"
    with pytest.raises(InvalidArgument, match=r"'cubic' is unknown; allowed: \['linear', 'cosine'"):
        BlendSchedule(curve=unknown)
    for steps in (0, -1):
        told = f"num_steps must be a whole number of at least 1, got {steps}"
        with pytest.raises(InvalidArgument, match=told):
            BlendSchedule(num_steps=steps)


@pytest.mark.parametrize(
    ("kind", "sizes", "features", "height_width", "num_positions", "text"),
    [
        (FeatureKind.SPATIAL, (3, 8, 6), 3, (8, 6), 48, "spatial 3x8x6"),
        (FeatureKind.TOKENS, (10, 4), 4, (1, 1), 10, "tokens 10x4"),
        (FeatureKind.VECTOR, (5,), 5, (1, 1), 1, "vector 5"),
    ],
)
def test_the_sizes_of_a_feature_map(
    kind: FeatureKind,
    sizes: tuple[int, ...],
    features: int,
    height_width: tuple[int, int],
    num_positions: int,
    text: str,
) -> None:
    found = FeatureMap(kind, sizes)
    assert (found.features, found.height_width) == (features, height_width)
    assert (found.num_positions, str(found)) == (num_positions, text)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        (FeatureKind.SPATIAL, (3, 8)),
        (FeatureKind.SPATIAL, (2, 3, 8, 8)),
        (FeatureKind.TOKENS, (10,)),
        (FeatureKind.VECTOR, ()),
        (FeatureKind.VECTOR, (0,)),
        (FeatureKind.TOKENS, (10, -4)),
    ],
)
def test_sizes_that_do_not_belong_to_their_kind_are_refused(
    kind: FeatureKind, sizes: tuple[int, ...]
) -> None:
    with pytest.raises(InvalidArgument, match=f"a {kind.value} feature map has . positive sizes"):
        FeatureMap(kind, sizes)


def test_messages_tell_what_they_are_about() -> None:
    vector = FeatureMap(FeatureKind.VECTOR, (5,))
    tokens = FeatureMap(FeatureKind.TOKENS, (2, 5))
    assert str(SlotShape(vector, tokens)) == "vector 5 -> tokens 2x5"
    command = AdaptationCommand(
        id="1", run_id="r", kind=CommandKind.GERMINATE, slot="a", blueprint="conv"
    )
    assert str(command) == "GERMINATE a conv"
    noop = AdaptationCommand(id="1", run_id="r", kind=CommandKind.NOOP, reason="still falling")
    assert str(noop) == "NOOP: still falling"
    moved = StageChanged(
        run_id="r",
        epoch=0,
        step=1,
        slot="a",
        before=SeedStage.DORMANT,
        after=SeedStage.GERMINATED,
        blueprint="conv",
        reason="plateau",
    )
    assert str(moved) == "a DORMANT -> GERMINATED conv: plateau"


def test_a_message_never_shares_a_default_with_another() -> None:
    one = AdaptationCommand(id="1", run_id="r", kind=CommandKind.NOOP)
    other = AdaptationCommand(id="2", run_id="r", kind=CommandKind.NOOP)
    one.parameters["width"] = 1
    assert other.parameters == {}
