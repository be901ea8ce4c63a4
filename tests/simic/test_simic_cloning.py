"""A network learns to do what its teacher did; what comes of it runs."""

from pathlib import Path

import pytest
import torch

from esper_lightning.leyline import InvalidArgument
from esper_lightning.simic import Lesson, agreement, clone, lessons
from esper_lightning.simic.__main__ import main
from esper_lightning.tamiyo.learned import Architecture, Learned, StoredPolicy

RUN = Path(__file__).parents[2] / "docs" / "results" / "explained" / "events.jsonl"
SMALL = Architecture(width=16, depth=1, heads=2)


@pytest.fixture(scope="module")
def learned() -> list[Lesson]:
    return lessons(RUN)


def test_it_learns_to_do_the_same(learned: list[Lesson]) -> None:
    before = clone(learned, learned, architecture=SMALL, epochs=1)
    after = clone(learned, learned, architecture=SMALL, epochs=60, rate=5e-3)
    assert min(after.losses) < 0.3 * before.losses[0]
    assert after.losses[after.epoch] == min(after.losses)
    told = agreement(after.network, learned)
    assert told.boundaries == len(learned)
    assert told.acted == sum(lesson.acts for lesson in learned)
    assert told.waits == 1 - told.acted / told.boundaries
    assert told.same_acted > 0.8
    assert told.same > told.waits


def test_the_same_lessons_and_seed_give_the_same_network(learned: list[Lesson]) -> None:
    one, again, other = (
        clone(learned, learned, architecture=SMALL, epochs=2, seed=seed) for seed in (0, 0, 1)
    )
    state = torch.get_rng_state()
    assert one.losses == again.losses != other.losses
    for name, value in one.network.state_dict().items():
        assert value.equal(again.network.state_dict()[name])
    assert state.equal(torch.get_rng_state())


def test_training_touches_no_global_generator(learned: list[Lesson]) -> None:
    state = torch.get_rng_state()
    clone(learned[:8], learned[:8], architecture=SMALL, epochs=1)
    assert state.equal(torch.get_rng_state())


def test_without_lessons_it_says_so(learned: list[Lesson]) -> None:
    with pytest.raises(InvalidArgument, match="got 0 and"):
        clone([], learned)


def test_the_command_writes_a_policy_that_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "policy.safetensors"
    asked = ["clone", str(RUN), "--held-out", str(RUN), "--epochs", "1", "--out", str(out)]
    assert main(asked) == 0
    card = StoredPolicy.load(out).card
    assert (card.name, card.version) == ("learned", 1)
    assert card.provenance["teacher"] == "heuristic"
    assert 0 <= card.provenance["agreement"]["same"] <= 1
    assert Learned(policy=out).card == card
    assert main(["clone", str(tmp_path / "none")]) == 2
    assert "no events.jsonl" in capsys.readouterr().err


def test_one_run_alone_is_too_few(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clone", str(RUN)]) == 2
    assert "too few" in capsys.readouterr().err
