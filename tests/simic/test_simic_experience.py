"""A store of recordings: each run once, bounded, in the order of its priorities, whole or named."""

import sqlite3
import threading
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from synthetic_runs import recording

from esper_lightning.leyline import DecodeError, InvalidArgument
from esper_lightning.simic.experience import Experience, ExperienceFailed
from esper_lightning.simic.reward import Utility


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "experience.sqlite"


def filled(path: Path, num: int, **options) -> Experience:
    experience = Experience(path, **options)
    for number in range(num):
        experience.add(recording(f"run {number}", seed=number))
    return experience


def runs(experience: Experience) -> list[str]:
    return [each.run_id for each in experience.recordings()]


# -- what is kept ------------------------------------------------------------------------------


def test_what_was_added_is_there_when_the_file_is_opened_again(path: Path) -> None:
    added = recording("run")
    with Experience(path) as experience:
        assert experience.add(added)
    with Experience(path) as experience:
        assert experience.ids() == [added.id]
        assert experience.get(added.id) == added
        assert experience.recordings() == [added]


def test_the_same_run_again_changes_nothing(path: Path) -> None:
    experience = Experience(path)
    assert [experience.add(recording("run")) for _ in range(3)] == [True, False, False]
    assert len(experience) == 1


def test_the_whole_of_a_run_replaces_its_part_and_never_the_reverse(path: Path) -> None:
    experience = Experience(path)
    part, whole = recording("run", ended=False), recording("run")
    assert experience.add(part)
    assert not experience.knows("run")
    assert experience.add(whole)
    assert experience.knows("run")
    assert not experience.add(part)
    assert experience.recordings() == [whole]


def test_a_recording_without_boundaries_or_too_large_is_refused(path: Path) -> None:
    experience = Experience(path, max_bytes=200)
    with pytest.raises(InvalidArgument, match="raise max_bytes"):
        experience.add(recording("run"))
    with pytest.raises(InvalidArgument, match="no boundary"):
        experience.add(recording("run", epochs=1, ended=False))
    assert len(experience) == 0


# -- bounds ------------------------------------------------------------------------------------


def test_beyond_its_capacity_the_oldest_of_the_lowest_priority_goes(path: Path) -> None:
    experience = filled(path, 3, capacity=3)
    told = {each.run_id: each.id for each in experience.recordings()}
    experience.update_priorities({told["run 0"]: 5.0, told["run 1"]: 0.1, told["run 2"]: 0.1})
    experience.add(recording("run 3", seed=3))
    assert runs(experience) == ["run 0", "run 2", "run 3"]


def test_the_latest_stays_where_priorities_are_equal(path: Path) -> None:
    assert runs(filled(path, 9, capacity=4)) == ["run 5", "run 6", "run 7", "run 8"]


def test_all_bytes_together_are_bounded(path: Path) -> None:
    size = max(len(recording(f"run {number}", seed=number).to_bytes()) for number in range(9))
    experience = filled(path, 9, max_bytes=3 * size + size // 2)
    assert len(experience) == 3


def test_what_went_does_not_come_back(path: Path) -> None:
    experience = filled(path, 4, capacity=2)
    assert not experience.add(recording("run 0"))
    assert experience.knows("run 0")
    assert runs(experience) == ["run 2", "run 3"]


def test_what_is_remembered_of_those_that_went_is_bounded(path: Path) -> None:
    experience = filled(path, 15, capacity=1)
    with experience.database.reading() as database:
        assert database.execute("SELECT count(*) FROM gone").fetchone() == (10,)
    assert not experience.knows("run 0")


def test_age_counts_what_came_later(path: Path) -> None:
    experience = filled(path, 5, max_age=2)
    assert runs(experience) == ["run 2", "run 3", "run 4"]


def test_age_counts_versions_of_the_policy(path: Path) -> None:
    experience = Experience(path, max_lag=2)
    for version in (1, 2, 3):
        experience.add(recording(f"version {version}", version=version))
    assert len(experience) == 3
    experience.add(recording("version 5", version=5))
    assert runs(experience) == ["version 3", "version 5"]
    assert not experience.add(recording("late", version=2)), "it is too old when it comes"
    assert runs(experience) == ["version 3", "version 5"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"capacity": 0},
        {"max_bytes": 0},
        {"max_age": 0},
        {"max_lag": -1},
        {"exponent": 1.5},
        {"exponent": "much"},
    ],
)
def test_arguments_are_checked(path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        Experience(path, **wrong)


# -- drawing -----------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_whoever_wrote_first(tmp_path: Path) -> None:
    one = filled(tmp_path / "one", 20)
    other = Experience(tmp_path / "other")
    for each in reversed(one.recordings()):
        other.add(each)
    assert one.sample(8, seed=3) == other.sample(8, seed=3) == one.sample(8, seed=3)
    assert one.sample(8, seed=3) != one.sample(8, seed=4)


def test_what_has_a_higher_priority_is_drawn_more_often_and_counts_less(path: Path) -> None:
    experience = filled(path, 4, exponent=1.0)
    ids = experience.ids()
    experience.update_priorities({ids[0]: 7.0, **dict.fromkeys(ids[1:], 1.0)})
    drawn = experience.sample(1000, seed=0, correction=1.0)
    often = Counter(each.id for each in drawn.recordings)
    assert often[ids[0]] == pytest.approx(700, abs=1)
    assert sum(often.values()) == 1000
    by_id = {each.id: weight for each, weight in zip(drawn.recordings, drawn.weights, strict=True)}
    assert by_id[ids[0]] == pytest.approx(1 / 7, rel=1e-2)
    assert by_id[ids[1]] == 1.0


def test_what_is_new_is_drawn_like_the_highest(path: Path) -> None:
    experience = filled(path, 2, exponent=1.0)
    ids = experience.ids()
    experience.update_priorities({ids[0]: 9.0, ids[1]: 1.0, "gone": 3.0})
    new = recording("new", seed=9)
    experience.add(new)
    drawn = experience.sample(1000, seed=1)
    often = Counter(each.id for each in drawn.recordings)
    assert often[new.id] == pytest.approx(often[ids[0]], abs=2)


def test_priorities_are_checked_before_any_is_changed(path: Path) -> None:
    experience = filled(path, 2)
    ids = experience.ids()
    before = experience.sample(5, seed=0).probabilities
    for wrong in (-1.0, float("nan"), float("inf"), "high"):
        with pytest.raises(InvalidArgument, match="priority"):
            experience.update_priorities({ids[0]: 4.0, ids[1]: wrong})  # type: ignore[dict-item]
    assert experience.sample(5, seed=0).probabilities == before


def test_of_nothing_nothing_is_drawn(path: Path) -> None:
    with pytest.raises(ExperienceFailed, match="nothing to draw from"):
        Experience(path).sample(1, seed=0)


# -- episodes ----------------------------------------------------------------------------------


def test_it_is_a_source_of_episodes(path: Path) -> None:
    experience = filled(path, 2, utility=Utility(rent_parameters=0.5))
    first, second = experience.episodes()
    assert [first.seed, second.seed] == [0, 1]
    (dear,) = filled(path.with_name("dear"), 1, utility=Utility(rent_parameters=9.0)).episodes()
    assert dear.utility < first.utility


def test_one_that_cannot_be_told_is_left_out(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    experience = filled(path, 1)
    blind = recording("blind", seed=1)
    assert blind.end is not None
    nowhere = msgspec.structs.replace(blind.end, value=None)
    experience.add(msgspec.structs.replace(blind, end=nowhere, twin_end=nowhere))
    assert [each.seed for each in experience.episodes()] == [0]
    assert "run blind is left out" in caplog.text


# -- damage ------------------------------------------------------------------------------------


def damage(path: Path, number: int) -> None:
    """Change one bit of a recording."""
    with sqlite3.connect(path) as database:
        data = bytearray(
            database.execute("SELECT data FROM contents WHERE number = ?", (number,)).fetchone()[0]
        )
        data[len(data) // 2] ^= 1
        database.execute("UPDATE contents SET data = ? WHERE number = ?", (bytes(data), number))
    database.close()


def test_one_that_is_damaged_is_told_by_name_and_takes_nothing_with_it(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with filled(path, 3) as experience:
        ids = experience.ids()
    damage(path, 2)
    experience = Experience(path)
    with pytest.raises(DecodeError, match=f"recording {ids[1]} in .* is damaged"):
        experience.get(ids[1])
    assert runs(experience) == ["run 0", "run 2"]
    assert ids[1] in caplog.text
    assert {each.run_id for each in experience.sample(30, seed=0).recordings} == {"run 0", "run 2"}
    assert list(experience.damaged()) == [ids[1]]
    with pytest.raises(InvalidArgument, match="no recording 'x'"):
        experience.get("x")


def test_a_draw_leaves_out_what_it_finds_damaged(path: Path) -> None:
    filled(path, 3).close()
    damage(path, 1)
    drawn = Experience(path).sample(30, seed=0)
    assert {each.run_id for each in drawn.recordings} == {"run 1", "run 2"}
    assert set(drawn.probabilities) == {0.5}


def test_a_file_that_is_no_store_is_refused_by_name(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all " * 100)
    with pytest.raises(ExperienceFailed, match=r"experience\.sqlite cannot be opened"):
        Experience(path)
    path.unlink()
    Experience(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(ExperienceFailed, match="format 9, this release writes 1"):
        Experience(path)


def test_a_damaged_page_takes_with_it_what_stands_there_and_no_more(path: Path) -> None:
    """Recordings of many pages each, of which one page is overwritten."""
    with Experience(path) as experience:
        for number in range(4):
            experience.add(recording(f"run {number}", seed=number, epochs=400))
        ids = experience.ids()
        middle = experience.get(ids[2]).to_bytes()
    data = bytearray(path.read_bytes())
    place = data.find(middle[-600:-500])
    assert place > 0
    data[place : place + 50] = b"x" * 50
    path.write_bytes(data)
    experience = Experience(path)
    assert runs(experience) == ["run 0", "run 1", "run 3"]
    assert list(experience.damaged()) == [ids[2]]


def test_after_it_was_closed_it_says_so(path: Path) -> None:
    experience = Experience(path)
    experience.close()
    with pytest.raises(ExperienceFailed, match="closed"):
        len(experience)


def test_threads_share_one_store(path: Path) -> None:
    experience = Experience(path)

    def add(first: int) -> None:
        for number in range(first, first + 10):
            experience.add(recording(f"run {number}", seed=number))

    threads = [threading.Thread(target=add, args=(10 * part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(experience) == 40


def test_several_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    failed: list[Exception] = []
    for number in range(40):
        together = threading.Barrier(4)

        def opens(number: int = number, together: threading.Barrier = together) -> None:
            together.wait()
            try:
                Experience(tmp_path / f"{number}.sqlite").close()
            except ExperienceFailed as error:
                failed.append(error)

        threads = [threading.Thread(target=opens) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
