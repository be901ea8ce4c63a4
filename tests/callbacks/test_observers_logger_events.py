"""What loggers are told of growth, and that they cannot harm a run."""

import logging

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from observed_run import NUM_BATCHES, QUIET, FakeKasmina, Tiny, loader, stand_in, trainer

from esper_lightning.callbacks.growth_figure import GrowthFigure
from esper_lightning.callbacks.logger_entries import entries_of, log_hyperparameters, logging_to
from esper_lightning.callbacks.logger_events import COLUMNS, KEY, LoggerEvents
from esper_lightning.leyline import StageChanged

pytestmark = QUIET


@pytest.fixture
def kasmina(monkeypatch) -> FakeKasmina:
    return stand_in(monkeypatch)


class Silent(Logger):
    """Takes part in a run and keeps nothing."""

    name = "silent"
    version = 0
    root_dir = log_dir = save_dir = None

    def __init__(self):
        self.told = []

    @property
    def experiment(self):
        return self

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_graph(self, *args):
        pass

    def save(self):
        pass

    def finalize(self, status):
        pass

    def after_save_checkpoint(self, checkpoint_callback):
        pass


class Board(Silent, TensorBoardLogger):
    """Takes lines and pictures."""

    def add_text(self, key, text, step):
        self.told.append(("text", key, text, step))

    def add_image(self, key, image, step, dataformats):
        self.told.append(("picture", key, image.ndim, step))


class Bias(Silent, WandbLogger):
    """Takes a table and pictures, and has an end."""

    def log_table(self, key, columns, rows):
        self.told.append(("table", key, columns, rows))

    def log_image(self, key, images):
        self.told.append(("picture", key, images))

    def finish(self, exit_code):
        self.told.append(("end", exit_code))


class Broken(Board):
    """Its server is gone."""

    def add_text(self, *arguments, **named):
        raise ConnectionError("no route to host")

    add_image = log_hyperparams = add_text


def test_loggers_are_told_in_the_form_that_they_take(tmp_path, kasmina):
    board, bias, silent = Board(), Bias(), Silent()
    run = trainer(
        tmp_path,
        LoggerEvents(),
        GrowthFigure(),
        kasmina,
        logger=[board, bias, silent],
        log_every_n_steps=1,
    )
    run.fit(Tiny(), loader())
    line, picture = board.told
    assert line[:2] == ("text", KEY)
    assert "net.0 DORMANT -> GERMINATED lowrank: the loss [is] flat" in line[2]
    assert line[3] == NUM_BATCHES
    assert picture == ("picture", "growth", 3, 2 * NUM_BATCHES)
    (_, key, columns, rows), (_, _, images) = bias.told
    assert (key, columns) == (KEY, list(COLUMNS))
    assert rows == [
        [0, NUM_BATCHES, "net.0", "DORMANT", "GERMINATED", "lowrank", "the loss [is] flat"]
    ]
    assert images == [str(tmp_path / "growth.png")]
    assert silent.told == []


def test_a_logger_that_fails_costs_a_warning_and_changes_nothing(tmp_path, kasmina, caplog):
    weights = []
    for callbacks, logger in (([], False), ([LoggerEvents(), GrowthFigure()], Broken())):
        module = Tiny()
        run = trainer(tmp_path, kasmina, *callbacks, logger=logger, log_every_n_steps=1)
        with caplog.at_level(logging.WARNING):
            run.fit(module, loader(shuffle=False))
        weights.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    assert torch.equal(*weights)
    for what in ("text", "the growth figure"):
        assert f"Broken did not take {what}: ConnectionError: no route to host" in caplog.text


def test_hyperparameters_that_one_logger_does_not_take_reach_the_others(tmp_path, caplog):
    kept = CSVLogger(tmp_path, name="", version="csv")
    log_hyperparameters([Broken(), kept], {"optimizer/lr": 0.1})
    assert kept.experiment.hparams == {"optimizer/lr": 0.1}
    assert "Broken did not take hyper-parameters" in caplog.text


@pytest.mark.parametrize("fails", [False, True])
def test_loggers_are_told_how_the_run_ended(fails):
    bias = Bias()
    try:
        with logging_to([bias, Silent()]):
            if fails:
                raise RuntimeError("the power went off")
    except RuntimeError:
        assert fails
    assert bias.told == [("end", int(fails))]


def test_a_subclass_takes_what_its_parent_takes_and_others_nothing():
    assert entries_of(Board()).text is not None
    assert entries_of(Silent()) == type(entries_of(Silent()))()


def test_what_happens_at_one_step_is_told_at_once(tmp_path, kasmina):
    board = Board()
    first = kasmina.emit

    def twice(event):
        first(event)
        if isinstance(event, StageChanged):
            first(event)

    kasmina.emit = twice
    trainer(tmp_path, LoggerEvents(), kasmina, logger=board, log_every_n_steps=1).fit(
        Tiny(), loader()
    )
    (told,) = board.told
    assert told[2].count("DORMANT -> GERMINATED") == 2
