import math

import pytest
from growing_run import CATALOGUE, NARROW, WIDE, blueprint, slot, state
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from esper_lightning import karn
from esper_lightning.karn import Tier
from esper_lightning.leyline import FeatureKind, FeatureMap, InvalidArgument, SlotShape
from esper_lightning.leyline import UnknownBlueprint as Unknown
from esper_lightning.tamiyo.budget import Price, Room
from esper_lightning.tamiyo.planting import LINEAR, best, largest, plan, prior, shares, sized
from esper_lightning.tamiyo.pressure import by_pressure
from esper_lightning.tamiyo.shortlist import Shortlist, offer

UNLIMITED = Room(parameters=math.inf, flops=math.inf)
SHORTLIST = Shortlist(catalogue=CATALOGUE)


def room(parameters: float = math.inf, flops: float = math.inf) -> Room:
    return Room(parameters=float(parameters), flops=float(flops))


def even(_slot, _name) -> float:
    return 1.0


def test_the_largest_size_that_fits_is_chosen():
    around = CATALOGUE["around"]  # 128 parameters per unit of expansion on NARROW
    assert largest(around, NARROW, room(parameters=500)).parameters == {"expansion": 3.75}
    assert largest(around, NARROW, room(parameters=31)) is None
    assert largest(around, NARROW, room(parameters=1e9)).parameters == {"expansion": 8.0}
    # 6 training FLOPs for each parameter: forward 2, backward twice that
    assert largest(around, NARROW, room(flops=6 * 128)).parameters == {"expansion": 1.0}


def test_without_a_limit_the_default_size_is_kept():
    assert largest(CATALOGUE["around"], NARROW, UNLIMITED).parameters == {"expansion": 4.0}


def test_an_integer_size_stays_an_integer_and_the_other_parameters_keep_their_defaults():
    found = largest(CATALOGUE["behind"], NARROW, room(parameters=100))
    assert found.parameters == {"rank": 6, "dropout": 0.0}
    assert type(found.parameters["rank"]) is int


@pytest.mark.parametrize("each", karn.CATALOGUE.values(), ids=lambda each: each.name)
@pytest.mark.parametrize("limit", [300, 3_000, 30_000])
def test_every_blueprint_of_karn_is_sized_within_the_room_and_no_smaller_than_it_must(each, limit):
    kinds = {
        FeatureKind.SPATIAL: (8, 4, 4),
        FeatureKind.TOKENS: (6, 16),
        FeatureKind.VECTOR: (16,),
    }
    for kind in sorted(each.kinds):
        shape = SlotShape(FeatureMap(kind, kinds[kind]), FeatureMap(kind, kinds[kind]))
        if not each.fits(shape):
            continue
        found = largest(each, shape, room(parameters=limit))
        if found is None:
            continue
        assert found.price.parameters == each.num_parameters(shape, found.parameters) <= limit
        default = offer(each, shape)
        if default.price.parameters <= limit:
            assert found.price.parameters >= default.price.parameters


def test_the_table_of_linear_blueprints_names_blueprints():
    assert set(karn.CATALOGUE) >= LINEAR


def test_parallel_beats_series_on_a_narrow_host_and_less_so_on_a_wide_one():
    price = Price(parameters=500, flops=1000.0)
    ratios = []
    for shape in (NARROW, WIDE):
        where = slot(shape=shape)
        series = prior(CATALOGUE["behind"], price, where)
        ratios.append(prior(CATALOGUE["around"], price, where) / series)
    assert ratios[0] == pytest.approx(5.0)
    assert 1 < ratios[1] < 1.1


def test_risk_and_late_stages_count_against_a_blueprint():
    options = {"parameters": CATALOGUE["around"].parameters}
    branch = CATALOGUE["around"].branch
    plain = blueprint("plain", 910, branch, **options)
    risky = blueprint("risky", 911, branch, risk=0.6, **options)
    later = blueprint("later", 912, branch, curriculum_stage=2, **options)
    price = Price(parameters=500, flops=1000.0)
    worth = [prior(each, price, slot()) for each in (plain, risky, later)]
    assert worth[0] > worth[1]
    assert worth[0] > worth[2]


def test_what_happened_in_the_run_decides_between_equals():
    branch, parameters = CATALOGUE["around"].branch, CATALOGUE["around"].parameters
    twins = {
        name: blueprint(name, 920 + index, branch, parameters=parameters)
        for index, name in enumerate(("first", "second"))
    }
    share = room(parameters=600)
    offers = sized(slot(), share, Shortlist(catalogue=twins))

    def chosen(trust):
        return best(offers, slot(), share=share, state=state(), trust=trust).blueprint.name

    assert chosen(even) == "first"
    assert chosen(lambda _, name: 0.1 if name == "first" else 1.0) == "second"
    assert chosen(lambda _, name: 2.0 if name == "second" else 1.0) == "second"


class _Dear(CATALOGUE["around"].branch):
    """The same parameters, used a hundred times a sample."""

    @classmethod
    def cost(cls, shape, /, *, expansion):
        parameters, flops = super().cost(shape, expansion=expansion)
        return karn.Cost(parameters=parameters, flops=100 * flops)


@pytest.mark.parametrize(
    ("host_flops", "expected"), [(1e15, "dear"), (None, "dear"), (1e3, "around")]
)
def test_flops_count_by_what_the_host_needs(host_flops, expected):
    dear = blueprint("dear", 930, _Dear, parameters=CATALOGUE["around"].parameters, risk=0.09)
    both = {"dear": dear, "around": CATALOGUE["around"]}
    share = room(parameters=600)
    offers = sized(slot(), share, Shortlist(catalogue=both))
    seen = state(host_flops=host_flops, flops=host_flops)
    assert best(offers, slot(), share=share, state=seen, trust=even).blueprint.name == expected


def test_slots_of_one_shape_share_equally():
    planned = plan(
        [slot("a"), slot("b")], room(600), state=state(), shortlist=SHORTLIST, trust=even
    )
    assert [each.slot.slot for each in planned] == ["a", "b"]
    assert {each.offer.price.parameters for each in planned} == {288}


def _stage(name, c_in, c_out, size):
    maps = [FeatureMap(FeatureKind.SPATIAL, (c, size, size)) for c in (c_in, c_out)]
    return slot(name, shape=SlotShape(*maps))


STAGES = [_stage("first", 8, 8, 32), _stage("second", 8, 16, 16), _stage("third", 16, 32, 8)]


@pytest.mark.parametrize("limit", [{"parameters": 40_000}, {"flops": 100_000_000}])
def test_stages_of_a_network_grow_to_the_same_multiple(limit):
    convolutions = Shortlist(blueprints=["parallel_conv"])
    planned = plan(STAGES, room(**limit), state=state(), shortlist=convolutions, trust=even)
    widths = {each.slot.slot: each.offer.parameters["expansion"] for each in planned}
    assert len(widths) == 3
    assert len(set(widths.values())) == 1
    (width,) = set(widths.values())
    larger = [
        offer(karn.CATALOGUE["parallel_conv"], each.shape, {"expansion": width + 0.5}).price
        for each in STAGES
    ]
    admitted = room(**limit)
    assert 0.25 < width < 8.0
    assert (
        sum(price.parameters for price in larger) > admitted.parameters
        or sum(price.flops for price in larger) > admitted.flops
    )


@given(
    st.integers(0, 10**9),
    st.floats(0, 1e15),
    st.lists(st.integers(0, 2), min_size=1, max_size=64),
)
@example(10**9, math.nextafter(1e12, 0), [0] * 5)
def test_shares_together_never_exceed_the_room(parameters, flops, stages):
    slots = [replace(STAGES[stage], slot=f"s{number}") for number, stage in enumerate(stages)]
    rooms = shares(slots, room(parameters, flops)).values()
    assert sum(share.parameters for share in rooms) <= parameters
    assert sum(share.flops for share in rooms) <= flops


@pytest.mark.parametrize("num", range(1, 65))
def test_a_share_that_is_whole_is_not_rounded_down(num):
    slots = [replace(STAGES[0], slot=f"s{number}") for number in range(num)]
    assert {share.parameters for share in shares(slots, room(num)).values()} == {1}


def test_a_slot_whose_share_admits_nothing_leaves_it_to_the_others():
    small = _stage("small", 1, 1, 4)
    planned = plan([small, STAGES[2]], room(600), state=state(), shortlist=Shortlist(), trust=even)
    assert [each.slot.slot for each in planned] == ["third"]
    assert planned[0].share == room(600)


def test_a_share_of_no_limit_is_none():
    assert all(share.is_unlimited for share in shares(STAGES, UNLIMITED).values())


def test_a_small_room_goes_to_the_most_wanted_slot():
    only_around = Shortlist(catalogue=CATALOGUE, blueprints=["around"])
    planned = plan(
        [slot("a"), slot("b"), slot("c")],
        room(50),
        state=state(),
        shortlist=only_around,
        trust=even,
    )
    assert [each.slot.slot for each in planned] == ["a"]


def test_a_slot_where_nothing_fits_leaves_its_share_to_the_others():
    only_around = Shortlist(catalogue=CATALOGUE, blueprints=["around"])
    slots = [slot("big", shape=WIDE), slot("a"), slot("b")]
    planned = plan(slots, room(600), state=state(), shortlist=only_around, trust=even)
    assert [each.slot.slot for each in planned] == ["a", "b"]
    assert {each.offer.price.parameters for each in planned} == {288}


def test_nothing_fits():
    assert plan([slot()], room(3), state=state(), shortlist=SHORTLIST, trust=even) == []
    unknown = Room(parameters=math.inf, flops=0.0, missing="not counted")
    assert plan([slot()], unknown, state=state(), shortlist=SHORTLIST, trust=even) == []
    assert plan([slot(shape=None)], UNLIMITED, state=state(), shortlist=SHORTLIST, trust=even) == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([NARROW, WIDE, None]), min_size=1, max_size=5),
    st.one_of(st.just(math.inf), st.integers(0, 10**6)),
    st.one_of(st.just(math.inf), st.integers(0, 10**7)),
)
def test_a_cohort_never_exceeds_its_room(shapes, parameters, flops):
    slots = [slot(f"s{index}", shape=shape) for index, shape in enumerate(shapes)]
    planned = plan(slots, room(parameters, flops), state=state(), shortlist=SHORTLIST, trust=even)
    assert len({each.slot.slot for each in planned}) == len(planned)
    assert sum(each.offer.price.parameters for each in planned) <= parameters
    assert sum(each.offer.price.flops for each in planned) <= flops


def test_pressure_orders_slots_and_culls_count_against_them():
    measured = [
        slot("a", pressure=1.0),
        slot("b", pressure=3.0),
        slot("c", pressure=3.5, num_culls=1),
        slot("d", pressure=1.0),
    ]
    assert [each.slot for each in by_pressure(measured)] == ["b", "c", "a", "d"]


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_a_missing_pressure_leaves_the_configured_order(missing):
    slots = [
        slot("a", pressure=missing),
        slot("b", pressure=9.0, num_culls=1),
        slot("c", pressure=5.0),
    ]
    assert [each.slot for each in by_pressure(slots)] == ["a", "c", "b"]


def test_the_shortlist():
    def names(**options):
        return [each.name for each in Shortlist(catalogue=CATALOGUE, **options).of(slot())]

    assert names() == ["around", "behind"]
    assert names(require_zero_at_birth=False) == ["around", "behind", "loud"]
    assert names(tiers=["production", "experimental"]) == ["around", "behind", "trial"]
    assert names(tiers=[Tier.EXPERIMENTAL]) == ["trial"]
    assert names(blueprints=["trial", "around"]) == ["trial", "around"]
    spatial = FeatureMap(FeatureKind.SPATIAL, (3, 4, 4))
    assert Shortlist(catalogue=CATALOGUE).of(slot(shape=SlotShape(spatial, spatial))) == []


def test_names_that_cannot_be_planted_are_refused():
    with pytest.raises(Unknown, match="no blueprint 'arround'; the catalogue has around"):
        Shortlist(catalogue=CATALOGUE, blueprints=["arround"])
    with pytest.raises(InvalidArgument, match="'loud' is not zero at birth"):
        Shortlist(catalogue=CATALOGUE, blueprints=["loud"])
    for bad in ([], ["around", "around"]):
        with pytest.raises(InvalidArgument, match="different names"):
            Shortlist(catalogue=CATALOGUE, blueprints=bad)
