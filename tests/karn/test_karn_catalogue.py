import pickle
import re
from collections.abc import Mapping

import pytest
import torch

from esper_lightning.karn import (
    CATALOGUE,
    Blueprint,
    Choice,
    Range,
    Tier,
    build,
    fitting,
    get,
    query,
)
from esper_lightning.karn.affine import ChannelAffine
from esper_lightning.kasmina.branch import BuildBranch
from esper_lightning.leyline import (
    Attachment,
    FeatureKind,
    FeatureMap,
    InvalidArgument,
    ParameterValue,
    SlotShape,
    UnknownBlueprint,
)


def spatial(*sizes: int) -> FeatureMap:
    return FeatureMap(FeatureKind.SPATIAL, sizes)


def vector(width: int) -> FeatureMap:
    return FeatureMap(FeatureKind.VECTOR, (width,))


def tokens(*sizes: int) -> FeatureMap:
    return FeatureMap(FeatureKind.TOKENS, sizes)


IMAGE = SlotShape(spatial(8, 16, 16), spatial(8, 16, 16))
SHRINKING = SlotShape(spatial(8, 16, 16), spatial(16, 8, 8))
FEATURES = SlotShape(vector(32), vector(16))
TEXT = SlotShape(tokens(12, 16), tokens(12, 16))
FLATTENING = SlotShape(spatial(8, 4, 4), vector(128))


def names(blueprints: list[Blueprint]) -> set[str]:
    return {blueprint.name for blueprint in blueprints}


# Metadata


def test_rows_are_sane_and_in_the_order_of_their_ids() -> None:
    rows = list(CATALOGUE.values())
    ids = [row.id for row in rows]
    assert ids == sorted(set(ids))
    assert len({row.branch for row in rows}) == len(rows)
    for name, row in CATALOGUE.items():
        assert row.name == name
        assert row.citation.strip()
        assert re.fullmatch(r"\d{4}-\d{2} v\d+", row.approval)
        number = int(row.id[2:])
        assert (row.tier is Tier.PRODUCTION) == (number <= 35)
        assert (row.tier is Tier.ADVERSARIAL) == (number >= 43)
        assert row.zero_at_birth
        assert row.branch.__doc__
        if row.tier is not Tier.ADVERSARIAL:  # which may come from no paper
            assert re.search(r"arXiv:\d{4}\.\d{4,5}", row.branch.__doc__)


def test_the_catalogue_is_read_only() -> None:
    with pytest.raises(TypeError):
        CATALOGUE["another"] = get("low_rank")  # type: ignore[index]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "BP1"}, "two to eight capitals and three digits, got 'BP1'"),
        ({"id": "bp001"}, "two to eight capitals and three digits, got 'bp001'"),
        ({"name": "Big Conv"}, "BP099: a name is in snake_case, got 'Big Conv'"),
        ({"risk": 1.5}, "risk must be between 0 and 1, got 1.5"),
        ({"risk": float("nan")}, "risk must be between 0 and 1, got nan"),
        ({"curriculum_stage": 0}, "curriculum_stage must be at least 1, got 0"),
        ({"kinds": frozenset()}, "kinds must not be empty"),
        ({"citation": ""}, "citation must not be empty"),
        ({"approval": ""}, "approval must not be empty"),
    ],
)
def test_bad_metadata(change: dict[str, object], message: str) -> None:
    row: dict[str, object] = {
        "id": "BP099",
        "name": "example",
        "branch": ChannelAffine,
        "kinds": frozenset({FeatureKind.SPATIAL}),
        "tier": Tier.EXPERIMENTAL,
        "risk": 0.5,
        "curriculum_stage": 1,
        "approval": "2026-11 v1",
        "citation": "nobody",
    }
    assert Blueprint(**row).resolve() == {}  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        Blueprint(**(row | change))  # type: ignore[arg-type]


# Parameters


def test_resolve_fills_defaults_and_converts() -> None:
    assert get("parallel_conv").resolve() == {"expansion": 4.0}
    resolved = get("parallel_conv").resolve({"expansion": 2})
    assert resolved == {"expansion": 2.0}
    assert type(resolved["expansion"]) is float
    assert get("conv_residual").resolve({"kernel_size": 5}) == {"kernel_size": 5}
    assert get("channel_affine").resolve({}) == {}


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("parallel_conv", {"expansion": 9.0}, "as a number from 0.25 to 8.0, got 9.0"),
        ("parallel_conv", {"expansion": float("nan")}, "as a number from 0.25 to 8.0, got nan"),
        ("parallel_conv", {"expansion": float("inf")}, "as a number from 0.25 to 8.0, got inf"),
        ("parallel_conv", {"expansion": True}, "as a number from 0.25 to 8.0, got True"),
        ("parallel_conv", {"expansion": "4"}, "as a number from 0.25 to 8.0, got '4'"),
        ("low_rank", {"rank": 0}, "'low_rank' takes rank as an integer from 1 to 64, got 0"),
        ("low_rank", {"rank": 8.0}, "takes rank as an integer from 1 to 64, got 8.0"),
        ("low_rank", {"rank": True}, "takes rank as an integer from 1 to 64, got True"),
        ("conv_residual", {"kernel_size": 4}, "takes kernel_size as one of 3, 5, got 4"),
        ("conv_residual", {"kernel_size": 3.0}, "takes kernel_size as one of 3, 5, got 3.0"),
        ("low_rank", {"width": 3}, "has no parameter 'width' (given 3); its parameters: rank"),
        ("channel_affine", {"gain": 1}, "no parameter 'gain' (given 1); its parameters: none"),
    ],
)
def test_bad_parameters(name: str, parameters: Mapping[str, ParameterValue], message: str) -> None:
    blueprint = get(name)
    shape = IMAGE if FeatureKind.SPATIAL in blueprint.kinds else TEXT
    for ask in (blueprint.num_parameters, blueprint.num_flops, blueprint.build):
        with pytest.raises(InvalidArgument, match=re.escape(message)):
            ask(shape, parameters)
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        build(name, parameters, shape)


@pytest.mark.parametrize("bounds", [(2, 1, 1), (1, 2, 3), (0.0, float("inf"), 1.0)])
def test_bad_range(bounds: tuple[float, float, float]) -> None:
    with pytest.raises(InvalidArgument, match="finite low <= default <= high"):
        Range(*bounds)


def test_bad_choice() -> None:
    with pytest.raises(InvalidArgument, match="default of a choice is one of its options"):
        Choice((1, 2), 3)
    assert Choice((False, True), False).accept(False) is False
    assert Choice((0, 1), 0).accept(False) is None


# Building


def test_build_is_picklable_and_what_a_slot_asks_for() -> None:
    asked: BuildBranch = build
    again = pickle.loads(pickle.dumps(asked))
    assert again is build
    torch.manual_seed(0)
    one = build("parallel_conv", {"expansion": 1.5}, SHRINKING)
    torch.manual_seed(0)
    two = again("parallel_conv", {"expansion": 1.5}, SHRINKING)
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("blueprint", CATALOGUE.values(), ids=lambda blueprint: blueprint.name)
def test_blueprints_travel_between_processes(blueprint: Blueprint) -> None:
    assert pickle.loads(pickle.dumps(blueprint)) == blueprint


def test_unknown_blueprint() -> None:
    with pytest.raises(
        UnknownBlueprint, match="no blueprint 'paralel_conv'; did you mean"
    ) as error:
        build("paralel_conv", {}, IMAGE)
    assert "'parallel_conv'" in str(error.value).split("?")[0]
    assert all(name in str(error.value) for name in CATALOGUE)
    with pytest.raises(UnknownBlueprint, match="no blueprint 'zzz'; the catalogue has"):
        get("zzz")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("low_rank", IMAGE),
        ("channel_affine", FEATURES),
        ("parallel_conv", SlotShape(spatial(8, 4, 4), spatial(8, 8, 4))),
        ("parallel_conv", FLATTENING),
        ("parallel_mlp", FLATTENING),
        ("parallel_mlp", SlotShape(tokens(6, 8), tokens(5, 8))),
        ("spatial_attention", SlotShape(spatial(8, 33, 32), spatial(8, 33, 32))),
        ("spatial_attention", SlotShape(spatial(8, 1, 3), spatial(8, 1, 3))),
        ("conv_residual", SlotShape(spatial(3, 1, 1), spatial(3, 1, 1))),
        ("convnext", SlotShape(spatial(3, 8, 8), spatial(3, 8, 8))),
        ("gated_mlp", SlotShape(vector(8), vector(3))),
        ("causal_conv", FEATURES),
        ("causal_conv", SlotShape(tokens(3, 8), tokens(3, 8))),
        ("causal_conv", SlotShape(tokens(6, 8), tokens(5, 8))),
        ("token_attention", SlotShape(tokens(3, 8), tokens(3, 8))),
        ("token_attention", SlotShape(tokens(4097, 8), tokens(4097, 8))),
        ("token_attention", SlotShape(tokens(6, 3), tokens(6, 8))),
        ("token_attention", SlotShape(tokens(6, 8), tokens(5, 8))),
    ],
    ids=str,
)
def test_what_does_not_fit(name: str, shape: SlotShape) -> None:
    assert not get(name).fits(shape)
    assert name not in names(fitting(shape))
    message = re.escape(f"blueprint {name!r} (") + ".*" + re.escape(f"does not fit {shape}")
    with pytest.raises(InvalidArgument, match=message):
        build(name, {}, shape)
    with pytest.raises(InvalidArgument, match=message):
        get(name).num_flops(shape)


def test_series_does_not_look_at_the_input() -> None:
    assert "mlp_residual" in names(fitting(FLATTENING))
    assert all(blueprint.attachment is Attachment.SERIES for blueprint in fitting(FLATTENING))


# Queries


def test_fitting_answers_in_the_order_of_ids_and_every_answer_builds() -> None:
    for shape in (IMAGE, SHRINKING, FEATURES, TEXT, FLATTENING):
        found = fitting(shape)
        assert found == sorted(found, key=lambda blueprint: blueprint.id)
        trusted = [row for row in CATALOGUE.values() if row.tier is Tier.PRODUCTION]
        assert [row for row in trusted if row.fits(shape)] == found
        for blueprint in found:
            assert sum(p.numel() for p in blueprint.build(shape).parameters()) > 0
    assert len(fitting(IMAGE)) == 22
    assert len(fitting(FEATURES)) == 9
    assert len(fitting(TEXT)) == 13


def test_fitting_by_attachment_tier_birth_stage_and_name() -> None:
    both = [names(fitting(IMAGE, attachment=attachment)) for attachment in Attachment]
    assert both[0] | both[1] == names(fitting(IMAGE))
    assert not both[0] & both[1]
    assert names(fitting(IMAGE, name="parallel_*")) == both[1]
    others = {Tier.EXPERIMENTAL, Tier.ADVERSARIAL}
    assert {blueprint.tier for blueprint in fitting(IMAGE, tiers=others)} == others
    assert fitting(IMAGE, zero_at_birth=True) == fitting(IMAGE)
    assert fitting(IMAGE, zero_at_birth=False) == []
    easy = names(fitting(IMAGE, max_stage=1))
    assert "parallel_conv" in easy
    assert "spatial_attention" not in easy


@pytest.mark.parametrize("shape", [IMAGE, FEATURES, TEXT], ids=str)
def test_fitting_within_a_budget(shape: SlotShape) -> None:
    every = fitting(shape)
    for limit in {blueprint.num_parameters(shape) for blueprint in every}:
        within = {b.name for b in every if b.num_parameters(shape) <= limit}
        assert names(fitting(shape, max_parameters=limit)) == within
    for limit in {blueprint.num_flops(shape) for blueprint in every}:
        within = {b.name for b in every if b.num_flops(shape) <= limit}
        assert names(fitting(shape, max_flops=limit)) == within
    assert fitting(shape, max_parameters=0) == []


def test_queries_by_kind_tier_risk_and_name() -> None:
    assert len(CATALOGUE) == 50
    tiers = [len(query(tiers={tier})) for tier in Tier]
    assert tiers == [35, 7, 8]
    for kind in FeatureKind:
        assert all(kind in row.kinds for row in query(kind=kind))
    assert names(query(max_risk=0.02)) == {"channel_affine", "vector_affine"}
    assert names(query(name="*_mlp")) == {"gated_mlp", "parallel_mlp"}


def test_conservative_mode_leaves_the_ten_of_the_lowest_risk() -> None:
    every = frozenset(Tier)
    trusted = query(conservative=True, tiers=every)
    assert len(trusted) == 10
    assert {row.tier for row in trusted} == {Tier.PRODUCTION}
    others = [row for row in query() if row not in trusted]
    assert max(row.risk for row in trusted) <= min(row.risk for row in others)
    for shape in (IMAGE, FEATURES, TEXT):
        found = fitting(shape, conservative=True)
        assert found == [row for row in trusted if row.fits(shape)]
        assert len(found) >= 2
