import pytest
from observed_run import NUM_BATCHES, QUIET, FakeKasmina, Tiny, loader, stand_in, trainer

from esper_lightning.callbacks.growth_figure import GrowthFigure
from esper_lightning.callbacks.journal import Journal

pytestmark = QUIET


@pytest.fixture
def kasmina(monkeypatch) -> FakeKasmina:
    return stand_in(monkeypatch)


FILES = ["growth.png", "growth.svg"]


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def drawn(monkeypatch):
    """Events of each figure that was saved."""
    import esper_lightning.callbacks.growth_figure as module

    calls, save = [], module.save_growth_figure

    def saving(events, directory):
        calls.append(list(events))
        return save(events, directory)

    monkeypatch.setattr(module, "save_growth_figure", saving)
    return calls


@pytest.mark.parametrize("figure_first", [True, False])
def test_figure_is_drawn_once_with_the_whole_run(tmp_path, kasmina, drawn, figure_first):
    callbacks = [GrowthFigure(), kasmina] if figure_first else [kasmina, GrowthFigure()]
    trainer(tmp_path, *callbacks).fit(Tiny(), loader())
    assert names(tmp_path) == FILES
    assert drawn == [kasmina.events]


def test_folder_can_be_chosen(tmp_path, kasmina):
    trainer(tmp_path, GrowthFigure(str(tmp_path / "figures")), kasmina).fit(Tiny(), loader())
    assert names(tmp_path / "figures") == FILES


@pytest.mark.parametrize("figure_first", [True, False])
def test_failed_run_is_drawn(tmp_path, kasmina, drawn, figure_first):
    callbacks = [GrowthFigure(), kasmina] if figure_first else [kasmina, GrowthFigure()]
    with pytest.raises(RuntimeError, match="power"):
        trainer(tmp_path, *callbacks).fit(Tiny(fails_at=NUM_BATCHES + 1), loader())
    assert names(tmp_path) == FILES
    assert drawn[-1] == kasmina.events


def test_failure_before_an_epochs_end_leaves_no_figure_and_its_own_error(tmp_path, kasmina):
    with pytest.raises(RuntimeError, match="power"):
        trainer(tmp_path, GrowthFigure(), kasmina).fit(Tiny(fails_at=1), loader())
    assert names(tmp_path) == []


def test_another_run_begins_anew(tmp_path, kasmina, monkeypatch, drawn):
    figure = GrowthFigure()
    trainer(tmp_path, figure, kasmina).fit(Tiny(), loader())
    other = stand_in(monkeypatch, "run2")
    trainer(tmp_path, figure, other).fit(Tiny(), loader())
    assert drawn == [kasmina.events, other.events]


def test_epochs_of_an_earlier_process_come_from_the_journal(tmp_path, kasmina, monkeypatch):
    import esper_lightning.callbacks.growth_figure as module

    told = []
    monkeypatch.setattr(module, "save_growth_figure", lambda e, d: told.append(list(e)) or (d, d))
    trainer(tmp_path, Journal(), kasmina).fit(Tiny(), loader())
    later = stand_in(monkeypatch)
    trainer(tmp_path, GrowthFigure(), later).fit(Tiny(), loader())
    assert told == [kasmina.events + later.events]


@pytest.mark.parametrize("content", [b"damage\nmore\n", b""])
def test_useless_journal_does_not_stop_the_figure(tmp_path, kasmina, content):
    (tmp_path / "events.jsonl").write_bytes(content)
    trainer(tmp_path, GrowthFigure(), kasmina).fit(Tiny(), loader())
    assert set(FILES) <= set(names(tmp_path))
