"""Experience from folders: each run beside the twin that began as it did, and nobody else's."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from synthetic_runs import written
from test_simic_experience_bus import received
from twin_runs import train

from esper_lightning.leyline import InvalidArgument
from esper_lightning.nissa.journal import JOURNAL_NAME, read_journal
from esper_lightning.simic.experience import BusFeed, Experience, Runs, from_runs
from esper_lightning.simic.softening import softened
from esper_lightning.tamiyo import Never
from esper_lightning.tamiyo.learned import Learned, StoredPolicy


@pytest.fixture
def experience(tmp_path: Path) -> Iterator[Experience]:
    with Experience(tmp_path / "experience.sqlite") as opened:
        yield opened


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Runs of two seeds and two lengths with their twins, one without, and others."""
    folder = tmp_path / "runs"
    for seed, epochs in ((0, 3), (1, 3), (0, 4)):
        written(folder / f"alone-{seed}-{epochs}", seed=seed, epochs=epochs, version=None)
        written(folder / f"run-{seed}-{epochs}", seed=seed, epochs=epochs)
    written(folder / "single", seed=9)
    return folder


def test_each_run_is_read_beside_its_own_twin(places: Path, experience: Experience) -> None:
    counts = from_runs(experience, places)
    assert counts == {"added": 3, "recordings": 3, "twins": 3, "alone": 1}
    found = {each.run_id: each for each in experience.recordings()}
    assert found.keys() == {"run-0-3", "run-1-3", "run-0-4"}
    for name, each in found.items():
        _, seed, epochs = name.split("-")
        assert each.seed == int(seed)
        assert each.twin[0].value == each.boundaries[0].state.objective.value
        assert len(each.twin) == len(each.boundaries) == int(epochs)
        assert each.task == f"MLP of 100 parameters, {epochs} epochs"
        assert each.end is not None
        assert each.end.value == each.boundaries[-1].state.metrics["val/loss"] / 2, "the summary's"
        assert (each.source, each.config_digest, each.versions) == (name, "0" * 64, {"a": "1"})


def test_read_again_nothing_is_added(places: Path, experience: Experience) -> None:
    from_runs(experience, places)
    again = from_runs(experience, [places, places / "run-0-3"])
    assert again["known"] == 3
    assert again["added"] == 0


def test_a_run_that_only_waited_is_a_twin_and_teaches(tmp_path: Path) -> None:
    """Its journal, with the policy's name in the place of never's."""
    folder = written(tmp_path / "waited", version=None)
    journal = folder / JOURNAL_NAME
    journal.write_text(
        journal.read_text()
        .replace('"policy":"never"', '"policy":"learned"')
        .replace('"log_probability":null', '"log_probability":-0.5')
        .replace('"policy_version":null', '"policy_version":1')
    )
    (recording,) = Runs(folder).recordings()
    assert recording.end == recording.twin_end
    (told,) = Runs([tmp_path]).episodes()
    assert told.utility == 0
    assert told.rewards == (0.0,) * len(told.steps)


def test_what_is_damaged_or_torn_is_counted_and_left_out(
    places: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = places / "run-0-3" / JOURNAL_NAME
    journal.write_bytes(b"nothing\n" + journal.read_bytes())
    torn = places / "run-1-3" / JOURNAL_NAME
    lines = torn.read_bytes().splitlines(keepends=True)
    torn.write_bytes(b"".join(lines[:1] + lines[3:]))
    runs = Runs(places)
    assert [each.run_id for each in runs.recordings()] == ["run-0-4"]
    assert +runs.counts == {"recordings": 1, "twins": 3, "alone": 1, "damaged": 1, "torn": 1}
    assert str(journal) in caplog.text


def test_a_run_that_broke_is_cut_off(tmp_path: Path) -> None:
    written(tmp_path / "alone", version=None)
    written(tmp_path / "broken", outcome="failed: it broke")
    (recording,) = Runs(tmp_path).recordings()
    assert recording.end is None
    (told,) = Runs(tmp_path).episodes()
    assert not told.terminated


def test_a_run_that_goes_on_is_read_anew_when_it_is_over(
    tmp_path: Path, experience: Experience
) -> None:
    written(tmp_path / "alone", version=None)
    run = written(tmp_path / "run")
    journal, whole = run / JOURNAL_NAME, (run / JOURNAL_NAME).read_bytes()
    journal.write_bytes(b"".join(whole.splitlines(keepends=True)[:-3]))
    assert from_runs(experience, tmp_path)["added"] == 1
    journal.write_bytes(whole)
    assert from_runs(experience, tmp_path)["added"] == 1
    (kept,) = experience.recordings()
    assert kept.end is not None


def test_tasks_may_be_named(places: Path) -> None:
    runs = Runs(places, task=lambda summary, first: f"{summary.host} {first.max_epochs}")
    assert {each.task for each in runs.recordings()} == {"MLP 3", "MLP 4"}


def test_a_place_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=JOURNAL_NAME):
        Runs(tmp_path).episodes()


def test_real_runs_from_folders_and_from_the_bus_are_the_same(
    tmp_path: Path, experience: Experience
) -> None:
    policy = softened(StoredPolicy.load("cloned"), 3.0)
    train(tmp_path / "alone", Never(), epochs=8)
    train(tmp_path / "run", Learned(policy=policy, sample=True, seed=2), epochs=8)
    assert from_runs(experience, tmp_path)["added"] == 1
    (read,) = experience.recordings()
    (told,) = experience.episodes()
    found = policy.network.evaluate(
        [step.observation for step in told.steps], [step.actions for step in told.steps]
    )
    logged = torch.tensor([step.log_probability for step in told.steps])
    torch.testing.assert_close(found.log_probabilities.sum(dim=1), logged, rtol=0, atol=1e-4)

    with Experience(tmp_path / "bus.sqlite") as other:
        feed = BusFeed(other, name=lambda _: (read.task, read.seed))
        for run in ("alone", "run"):
            for each in received(read_journal(tmp_path / run / JOURNAL_NAME)):
                if each.envelope.kind in ("run_started", "state", "decision", "run_ended"):
                    feed(each, None)
        (heard,) = other.recordings()
    assert heard.id == read.id
    assert heard.twin == read.twin
    same = msgspec.structs.replace(
        heard, end=read.end, twin_end=read.twin_end, source=read.source,
        config_digest=read.config_digest, versions=read.versions,
    )  # fmt: skip
    assert same == read
