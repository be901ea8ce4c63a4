"""What a learned policy sees of a boundary."""

import json
import math

import msgspec
import numpy as np
import pytest
import torch
from growing_run import CATALOGUE, NARROW, WIDE, g4, slot, state
from observing import busy, chain, observer

from esper_lightning.karn import CATALOGUE as KARN
from esper_lightning.karn import Tier
from esper_lightning.leyline import (
    CommandKind,
    FossilState,
    InvalidArgument,
    LayerState,
    Objective,
    SeedStage,
)
from esper_lightning.simic.validation.hostile_states import boundaries
from esper_lightning.tamiyo import Choice, GrowthBudget
from esper_lightning.tamiyo.observation import (
    KINDS,
    Observer,
    blueprints,
    layers,
    pairs,
    run,
    slots,
)
from esper_lightning.tamiyo.observation.history import MAX_POINTS
from esper_lightning.tamiyo.observation.topology import (
    APART,
    HOPS,
    MAX_LAYERS,
    NUM_RELATIONS,
    SAME,
    topology,
)
from esper_lightning.tamiyo.shortlist import Shortlist

SLOT_NAMES = (*slots.NAMES, *layers.NAMES)
TENSORS = ("run", "layers", "slots", "blueprints", "pairs")


def seen(tensor: torch.Tensor, names: tuple[str, ...], name: str) -> list[float | None]:
    """A feature of every row; None where it is missing."""
    groups = (names[: len(slots.NAMES)], names[len(slots.NAMES) :]) if names == SLOT_NAMES else ()
    place, offset = names.index(name), len(names)
    if groups:
        own = 0 if name in groups[0] else 1
        offset = len(groups[own])
        place = groups[own].index(name) + 2 * own * len(groups[0])
    rows = torch.atleast_2d(tensor)
    return [row[place].item() if row[place + offset] else None for row in rows]


def of_slots(found, name):
    return seen(found.slots, SLOT_NAMES, name)


def test_every_number_is_finite_and_in_its_place_on_any_boundary():
    observe = Observer(Shortlist(tiers=list(Tier)), GrowthBudget())
    for each in boundaries(120, seed=3):
        found = observe.observe(each)
        num_slots, num_blueprints = len(each.slots), len(found.blueprint_names)
        assert found.run.shape == (2 * len(run.NAMES),)
        assert found.slots.shape == (num_slots, 2 * len(SLOT_NAMES))
        assert found.layers.shape[1] == 2 * len(layers.NAMES)
        assert found.blueprints.shape == (num_blueprints, 2 * len(blueprints.NAMES))
        assert found.pairs.shape == (num_slots, num_blueprints, 2 * len(pairs.NAMES))
        assert found.fits.shape == (num_slots, num_blueprints)
        assert found.legal.shape == (num_slots, len(KINDS))
        num_nodes = len(found.layers) + num_slots
        assert found.relations.shape == (num_nodes, num_nodes)
        assert num_nodes <= max(MAX_LAYERS, num_slots)
        for name in TENSORS:
            tensor = getattr(found, name)
            assert tensor.dtype == torch.float32
            assert tensor.isfinite().all()
            assert not (tensor.abs() > 1500).any()  # the log of the widest ratio of two floats


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["pressure", "gain", "rent", "gradient_norm", "output_ratio"])
def test_what_is_not_finite_is_missing_as_what_is_not_there(field, odd):
    on_trial = slot("a", SeedStage.PROBATIONARY, pressure=1.0, gain=0.2, rent=0.1)
    given = {
        value: observer().observe(state(msgspec.structs.replace(on_trial, **{field: value})))
        for value in (odd, None, 0.0)
    }
    if field in ("gain", "rent"):  # whether it pays can be told from an infinite one
        assert of_slots(given[odd], field) == [None]
        assert of_slots(given[odd], f"{field}_size") == [None]
    else:
        assert torch.equal(given[odd].slots, given[None].slots)
    assert not torch.equal(given[0.0].slots, given[None].slots)


def test_nothing_has_a_unit():
    """Another unit of the loss, of the gradients or of the learning rate shows the same."""
    plain, other = observer(), observer()
    for epoch in range(8):
        first = busy(epoch=epoch)
        loss, rate = 1 / (1 + epoch), 0.1 * 0.9**epoch
        first = msgspec.structs.replace(
            first, objective=Objective(name="loss", value=loss), learning_rate=rate
        )
        second = msgspec.structs.replace(
            first,
            objective=Objective(name="other", value=1000 * loss),
            learning_rate=7 * rate,
            slots=tuple(
                msgspec.structs.replace(each, pressure=50 * each.pressure) for each in first.slots
            ),
        )
        a, b = plain.observe(first), other.observe(second)
        for name in TENSORS:
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-4, atol=1e-5)
    assert seen(a.run, run.NAMES, "slope")[0] == pytest.approx(
        seen(b.run, run.NAMES, "slope")[0], rel=1e-4
    )


def test_the_heuristics_questions_are_answered():
    quiet, loud = slot("a", pressure=1.0), slot("b", pressure=4.0, num_culls=1)
    tried = slot("c", pressure=3.0, num_culls=1)
    on_trial = slot(
        "d",
        SeedStage.PROBATIONARY,
        age=9,
        cohort=3,
        gain=0.02,
        rent=0.01,
        gate=g4(True),
        pressure=9.0,
    )
    found = observer().observe(state(quiet, loud, tried, on_trial, epoch=11))
    assert of_slots(found, "rank")[0] == pytest.approx(
        math.log(3)
    )  # 4 * 0.5 and 3 * 0.5 press more
    assert of_slots(found, "rank")[1:] == [0.0, pytest.approx(math.log(2)), None]
    assert of_slots(found, "passed") == [0.0, 0.0, 0.0, 1.0]
    assert of_slots(found, "pays") == [None, None, None, 1.0]
    assert of_slots(found, "age_of_trial")[3] == pytest.approx(math.log1p(9 / 20))
    assert of_slots(found, "gain_size")[3] == pytest.approx(math.log(0.02))
    assert of_slots(found, "cohort_passed") == [None, None, None, 1.0]
    assert seen(found.run, run.NAMES, "progress") == [pytest.approx(math.log1p(0.5))]
    assert seen(found.run, run.NAMES, "epochs_left") == [pytest.approx(math.log(13))]
    assert seen(found.run, run.NAMES, "since_change") == [pytest.approx(math.log(9))]


def test_the_slope_of_the_curve_and_its_worsening_since_planting():
    observe = observer()
    on_trial = slot("a", SeedStage.PROBATIONARY, cohort=3)
    for epoch, loss in enumerate([1.0, 1.0, 1.0, 1.0, 1.2, 1.2]):
        seeds = slot("a") if epoch < 4 else on_trial
        found = observe.observe(
            state(seeds, epoch=epoch, objective=Objective(name="loss", value=loss))
        )
    assert seen(found.run, run.NAMES, "slope_sign") == [-1.0]
    assert of_slots(found, "worsening") == [pytest.approx(math.log1p(0.2))]
    broken = observe.observe(
        state(on_trial, epoch=6, objective=Objective(name="loss", value=math.nan))
    )
    assert of_slots(broken, "broken") == [1.0]
    assert of_slots(broken, "worsening") == [None]
    assert seen(broken.run, run.NAMES, "objective_finite") == [0.0]
    silent = observe.observe(state(on_trial, epoch=7, objective=Objective(name="loss")))
    assert seen(silent.run, run.NAMES, "objective_there") == [0.0]
    assert seen(silent.run, run.NAMES, "objective_finite") == [None]


def test_the_order_of_slots_is_not_seen():
    plain = busy()
    order = [3, 0, 5, 1, 4, 2]
    shuffled = msgspec.structs.replace(plain, slots=tuple(plain.slots[place] for place in order))
    a, b = observer().observe(plain), observer().observe(shuffled)
    assert torch.equal(a.run, b.run)
    assert torch.equal(a.layers, b.layers)
    for name in ("slots", "pairs", "legal", "fits", "prices"):
        assert torch.equal(getattr(a, name)[order], getattr(b, name))
    num = len(a.layers)
    both = torch.tensor([*range(num), *(num + place for place in order)])
    assert torch.equal(a.relations[both][:, both], b.relations)


def test_only_kinds_that_are_asked_for_may_be_chosen():
    free = slot("a", legal=tuple(CommandKind), gate=g4(True))
    budget = GrowthBudget()
    usual = Observer(Shortlist(), budget).observe(state(free)).legal[0]
    assert [kind for kind, may in zip(KINDS, usual, strict=True) if may] == [
        CommandKind.GERMINATE,
        CommandKind.FOSSILIZE,
        CommandKind.CULL,
    ]
    asked = Observer(Shortlist(), budget, kinds=["prune"]).observe(state(free)).legal[0]
    assert [kind for kind, may in zip(KINDS, asked, strict=True) if may] == [CommandKind.PRUNE]
    with pytest.raises(InvalidArgument, match=r"kinds must be some of germinate.*got \['noop'\]"):
        Observer(Shortlist(), budget, kinds=["noop"])


def test_what_the_gate_has_not_let_pass_may_not_be_made_permanent():
    told = {"may": g4(True), "failed": g4(False), "not_asked": None}
    seeds = [slot(name, SeedStage.PROBATIONARY, gate=gate) for name, gate in told.items()]
    assert all(CommandKind.FOSSILIZE in seed.legal for seed in seeds)
    legal = Observer(Shortlist(), GrowthBudget()).observe(state(*seeds)).legal
    assert legal[:, KINDS.index(CommandKind.FOSSILIZE)].tolist() == [True, False, False]
    assert legal[:, KINDS.index(CommandKind.CULL)].all()


def test_dataflow_is_seen_in_hops():
    graph = topology(chain("a", "b", "c", "d", "e", "f"), ["b", "f", "elsewhere"])
    assert graph.places == (0, 2, 3, 4)
    assert graph.slots == (1, 5, None)
    a, b, f, lost = 0, 4, 5, 6
    buckets = len(HOPS) + 1
    assert graph.relations[b, a] == 2  # b reads a, one hop
    assert graph.relations[a, b] == 2 + buckets
    assert graph.relations[f, b] == 4  # three hops fall with four
    assert graph.relations[f, a] == 5
    assert graph.relations[b, b] == SAME
    assert (graph.relations[lost, :-1] == APART).all()
    assert graph.relations.max() < NUM_RELATIONS


def test_layers_that_are_merged_still_carry_the_dataflow():
    deep = [f"body.{number}.inner.linear" for number in range(200)]
    path = ["stem", *deep[:100], "middle.deep.slot", *deep[100:], "head"]
    graph = topology(chain(*path), ["middle.deep.slot"])
    assert len(graph.relations) == MAX_LAYERS
    kept = [path[place] for place in graph.places]
    assert kept[0] == "stem"
    assert kept[-1] == "head"
    own = len(kept)
    before = kept[-2]  # of the deep ones the first are kept: the slot reads the last of them
    assert graph.relations[own, kept.index(before)] == 2
    assert graph.relations[kept.index("head"), own] == 2
    many = [f"slot.{number}" for number in range(MAX_LAYERS + 5)]
    assert len(topology(chain(*many, "head"), many).relations) == len(many)


def test_a_graph_with_cycles_and_strangers_is_a_graph_too():
    odd = tuple(
        LayerState(path=path, module="", num_parameters=0, reads=("a", "b", "nowhere"))
        for path in "abb"
    )
    relations = topology(odd, ["a", "a"]).relations
    assert (np.diag(relations) == SAME).all()
    assert relations.min() >= 0
    assert relations.max() < NUM_RELATIONS


def test_quarantine_and_an_unknown_shape_offer_nothing():
    found = observer().observe(
        state(slot("a"), slot("b", quarantined=("around",)), slot("c", shape=None))
    )
    assert found.blueprint_names == ("around", "behind")
    assert found.fits.tolist() == [[True, True], [False, True], [False, False]]


def test_trust_is_what_the_record_says():
    observe = observer()
    fossil = FossilState(
        blueprint="behind", parameters={}, num_parameters=5, planted_epoch=1, fossilized_epoch=2
    )
    free = slot("a", fossils=(fossil,))
    choice = Choice(kind=CommandKind.GERMINATE, slot="a", blueprint="around", reason="test")
    observe.observe(state(free, epoch=3))
    observe.note(state(free, epoch=3), [choice, msgspec.structs.replace(choice, refused="no")])
    found = observe.observe(state(free, epoch=4))  # it was planted and is gone
    trust = seen(found.pairs[0], pairs.NAMES, "trust")
    assert trust == [pytest.approx(math.log(0.1)), pytest.approx(math.log(2))]
    assert seen(found.run, run.NAMES, "since_change") == [0.0]


def test_what_is_remembered_is_bounded_and_survives_resume():
    observe = observer()
    for epoch in range(MAX_POINTS + 40):
        loss = Objective(name="loss", value=1 / (1 + epoch))
        given = state(slot("a"), epoch=epoch, max_epochs=None, objective=loss)
        observe.observe(given)
    saved = json.loads(json.dumps(observe.state_dict()))
    assert len(saved["record"]["curve"]) == MAX_POINTS
    resumed = observer()
    resumed.load_state_dict(saved, policy="test")
    observe.observe(given)  # the same boundary again
    assert resumed.state_dict() == observe.state_dict()
    later = state(slot("a"), epoch=given.epoch + 1, max_epochs=None)
    assert torch.equal(resumed.observe(later).run, observe.observe(later).run)
    with pytest.raises(InvalidArgument, match="not a saved state of the policy 'test'"):
        resumed.load_state_dict({"curve": []}, policy="test")


def test_looking_changes_nothing():
    observe = observer()
    observe.observe(busy(epoch=4))
    before = observe.state_dict()
    observe.look(busy(epoch=5))
    assert observe.state_dict() == before


def test_a_mode_that_is_none_is_refused():
    with pytest.raises(InvalidArgument, match="mode must be 'min' or 'max'"):
        observer().observe(state(objective=Objective(name="loss", mode="down", value=1.0)))


def test_names_are_different_and_the_catalogues_do_not_matter():
    for names in (run.NAMES, SLOT_NAMES, blueprints.NAMES, pairs.NAMES):
        assert len(set(names)) == len(names)
    small = Observer(Shortlist(catalogue=CATALOGUE), GrowthBudget())
    large = Observer(Shortlist(catalogue=KARN), GrowthBudget())
    given = state(slot("a", shape=NARROW), slot("b", shape=WIDE))
    few, many = small.observe(given), large.observe(given)
    assert few.blueprints.shape[1:] == many.blueprints.shape[1:]
    assert len(few.blueprints) < len(many.blueprints)
