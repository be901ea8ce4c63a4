import logging
import re
import sys

import pytest
import torch
from lightning.pytorch import seed_everything
from observed_run import NUM_BATCHES, QUIET, FakeKasmina, Tiny, loader, stand_in, trainer

from esper_lightning.callbacks.growth_figure import GrowthFigure
from esper_lightning.callbacks.journal import Journal
from esper_lightning.callbacks.live_table import LiveTable
from esper_lightning.leyline import InvalidArgument

pytestmark = QUIET


@pytest.fixture
def kasmina(monkeypatch) -> FakeKasmina:
    return stand_in(monkeypatch)


LINES = [
    "epoch 1/2: val/loss 0.5  val/acc 75.0 %  parameters 20",
    "epoch 1: net.0 DORMANT -> GERMINATED lowrank: the loss [is] flat",
    "epoch 2/2: val/loss 0.5  val/acc 75.0 %  parameters 30 (1.5x)",
]
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


@pytest.fixture
def pipe(monkeypatch):
    """Output that is not a terminal, whatever the tests run in."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def terminal(monkeypatch):
    """Output that rich takes for a terminal of 100 columns."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", text)


@pytest.mark.parametrize("table_first", [True, False])
def test_without_a_terminal_one_line_for_each_epoch_and_move(
    tmp_path, kasmina, capsys, pipe, table_first
):
    callbacks = [LiveTable(), kasmina] if table_first else [kasmina, LiveTable()]
    trainer(tmp_path, *callbacks).fit(Tiny(), loader(), loader())
    assert capsys.readouterr().out.splitlines() == LINES


def test_default_progress_bar_stays_off(tmp_path, kasmina):
    table = LiveTable()
    run = trainer(tmp_path, table, kasmina)
    assert run.progress_bar_callback is table
    assert table.is_enabled


def test_two_fits_print_each_line_once(tmp_path, kasmina, capsys, pipe):
    table = LiveTable()
    for _ in range(2):
        trainer(tmp_path, table, kasmina, max_epochs=1).fit(Tiny(), loader())
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3
    assert len(set(out)) == 3


def test_other_entry_points_need_no_kasmina(tmp_path, capsys, pipe):
    run = trainer(tmp_path, LiveTable())
    run.validate(Tiny(), loader(), verbose=False)
    run.test(Tiny(), loader(), verbose=False)
    run.predict(Tiny(), loader())
    assert capsys.readouterr().out == ""


def test_disabled_table_is_silent(tmp_path, kasmina, capsys, pipe):
    table = LiveTable()
    table.disable()
    trainer(tmp_path, table, kasmina).fit(Tiny(), loader())
    assert capsys.readouterr().out == ""
    table.enable()
    assert table.is_enabled


@pytest.mark.parametrize("refresh_hz", [0.0, -1.0, float("nan")])
def test_refresh_must_be_positive(refresh_hz):
    with pytest.raises(InvalidArgument, match="refresh_hz must be positive, got"):
        LiveTable(refresh_hz)


def test_terminal_shows_table_and_progress(tmp_path, kasmina, capsys, terminal):
    trainer(tmp_path, LiveTable(), kasmina).fit(Tiny(), loader(), loader())
    out = capsys.readouterr().out
    assert out.count(HIDE_CURSOR) == out.count(SHOW_CURSOR) == 1
    last = plain(out)[-1200:]
    assert "epoch 2/2   val/loss 0.5   parameters 30 (1.5x of 20)" in last
    assert "germinated" in last
    assert f"{NUM_BATCHES}/{NUM_BATCHES} val/acc 75.0 %" in last
    assert not any(line in plain(out) for line in LINES)


@pytest.mark.parametrize("run", ["validate", "test", "predict"])
def test_terminal_shows_other_passes(tmp_path, capsys, terminal, run):
    options = {} if run == "predict" else {"verbose": False}
    getattr(trainer(tmp_path, LiveTable()), run)(Tiny(), loader(), **options)
    out = capsys.readouterr().out
    assert out.count(HIDE_CURSOR) == out.count(SHOW_CURSOR) == 1
    assert f"{NUM_BATCHES}/{NUM_BATCHES}" in plain(out)
    assert plain(out).strip().startswith(run)


def test_terminal_is_given_back_after_an_error(tmp_path, kasmina, capsys, terminal):
    streams = sys.stdout, sys.stderr
    with pytest.raises(RuntimeError, match="power"):
        trainer(tmp_path, LiveTable(), kasmina).fit(Tiny(fails_at=5), loader())
    assert (sys.stdout, sys.stderr) == streams
    out = capsys.readouterr().out
    assert out.count(HIDE_CURSOR) == out.count(SHOW_CURSOR) == 1


def test_log_lines_appear_above_the_view(tmp_path, kasmina, capsys, terminal):
    handler = logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("somebody")
    logger.addHandler(handler)

    class Talks(Tiny):
        def on_train_epoch_end(self):
            logger.error("the house [is] on fire")

    try:
        trainer(tmp_path, LiveTable(), kasmina, max_epochs=1).fit(Talks(), loader())
        assert handler.stream is sys.stderr
    finally:
        logger.removeHandler(handler)
    captured = capsys.readouterr()
    assert "the house [is] on fire" in plain(captured.out)
    assert "on fire" not in captured.err


def test_observed_training_is_bit_identical(tmp_path, kasmina, terminal):
    def trained(*callbacks):
        seed_everything(3, verbose=False)
        module = Tiny()
        options = {"gradient_clip_val": 0.5, "max_epochs": 3}
        trainer(tmp_path, *callbacks, **options).fit(module, loader(shuffle=True), loader())
        return [p.detach().clone() for p in module.parameters()], torch.get_rng_state()

    bare, bare_rng = trained(FakeKasmina())
    seen, seen_rng = trained(LiveTable(), Journal(), GrowthFigure(), kasmina)
    assert all(torch.equal(a, b) for a, b in zip(bare, seen, strict=True))
    assert torch.equal(bare_rng, seen_rng)
