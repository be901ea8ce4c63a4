"""What a policy may plant in a slot."""

from esper_lightning.leyline import FeatureKind, FeatureMap, SeedStage, SeedState, SlotShape
from esper_lightning.tamiyo.shortlist import Shortlist

SHAPE = SlotShape(
    input=FeatureMap(kind=FeatureKind.VECTOR, sizes=(8,)),
    output=FeatureMap(kind=FeatureKind.VECTOR, sizes=(8,)),
)


def test_what_disturbed_the_host_is_not_offered_again_there() -> None:
    shortlist = Shortlist()
    free = SeedState(slot="a", stage=SeedStage.DORMANT, shape=SHAPE)
    names = [blueprint.name for blueprint in shortlist.of(free)]
    once_bitten = SeedState(slot="a", stage=SeedStage.DORMANT, shape=SHAPE, quarantined=(names[0],))
    assert [blueprint.name for blueprint in shortlist.of(once_bitten)] == names[1:]


def test_nothing_is_offered_before_the_shape_is_known() -> None:
    assert Shortlist().of(SeedState(slot="a", stage=SeedStage.UNKNOWN)) == []
