import pytest
from observed_run import QUIET, FakeKasmina, Tiny, loader, stand_in, trainer

from esper_lightning.callbacks.journal import Journal
from esper_lightning.leyline import InvalidArgument, RunEnded
from esper_lightning.nissa.journal import read_journal

pytestmark = QUIET


@pytest.fixture
def kasmina(monkeypatch) -> FakeKasmina:
    return stand_in(monkeypatch)


@pytest.mark.parametrize("journal_first", [True, False])
def test_every_event_is_written_whatever_the_order_of_callbacks(tmp_path, kasmina, journal_first):
    callbacks = [Journal(), kasmina] if journal_first else [kasmina, Journal()]
    trainer(tmp_path, *callbacks).fit(Tiny(), loader(), loader())
    assert read_journal(tmp_path / "events.jsonl") == kasmina.events
    assert len(kasmina.events) == 5


def test_folder_can_be_chosen(tmp_path, kasmina):
    journal = Journal(dirpath=str(tmp_path / "a" / "b"))
    trainer(tmp_path, journal, kasmina).fit(Tiny(), loader())
    assert journal.path == tmp_path / "a" / "b" / "events.jsonl"
    assert read_journal(journal.path) == kasmina.events
    assert not (tmp_path / "events.jsonl").exists()


@pytest.mark.parametrize("journal_first", [True, False])
def test_failed_run_is_journalled_to_its_end(tmp_path, kasmina, journal_first):
    callbacks = [Journal(), kasmina] if journal_first else [kasmina, Journal()]
    with pytest.raises(RuntimeError, match="power"):
        trainer(tmp_path, *callbacks).fit(Tiny(fails_at=6), loader())
    events = read_journal(tmp_path / "events.jsonl")
    assert events == kasmina.events
    assert isinstance(events[-1], RunEnded)
    assert events[-1].outcome == "failed: the power went off"


def test_same_run_fitted_twice_is_one_journal(tmp_path, kasmina):
    journal, module = Journal(), Tiny()
    trainer(tmp_path, journal, kasmina).fit(module, loader())
    trainer(tmp_path, journal, kasmina).fit(module, loader())
    assert read_journal(tmp_path / "events.jsonl") == kasmina.events
    assert sum(isinstance(event, RunEnded) for event in kasmina.events) == 2


def test_journal_of_another_run_stops_before_training(tmp_path, kasmina, monkeypatch):
    trainer(tmp_path, Journal(), kasmina).fit(Tiny(), loader())
    other = stand_in(monkeypatch, "run2")
    run = trainer(tmp_path, Journal(), other)
    with pytest.raises(InvalidArgument, match=r"'run1'.*'run2'.*directory of its own"):
        run.fit(Tiny(), loader())
    assert run.global_step == 0


def test_validation_and_test_need_no_kasmina(tmp_path):
    run = trainer(tmp_path, Journal())
    run.validate(Tiny(), loader(), verbose=False)
    run.test(Tiny(), loader(), verbose=False)
    assert list(tmp_path.iterdir()) == []


def test_without_kasmina_a_fit_says_what_is_missing(tmp_path):
    with pytest.raises(InvalidArgument, match="Kasmina"):
        trainer(tmp_path, Journal()).fit(Tiny(), loader())
