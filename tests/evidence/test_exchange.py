"""What an epoch of the small network is worth, on runs that never were, and on a few real ones."""

from pathlib import Path

import msgspec
import pytest
from frontier_rows import KEPT, row, summary

from esper_lightning.evidence import exchange
from esper_lightning.evidence.frontier.rows import Row

EPOCHS = 12
PRICE = 0.25


def _accuracy(epochs: float) -> float:
    """Of the large network: a point for each epoch."""
    return 0.5 + 0.01 * epochs


def _runs(*, worth_alone: float, worth_in_the_end: float, seeds: int = 3) -> list[Row]:
    """Planted after six epochs; growing costs what it must and nothing more."""
    planted = 6
    kept = msgspec.structs.replace(KEPT, planted_epoch=planted - 1)
    cost = planted * PRICE + EPOCHS - planted
    rows = []
    for seed in range(seeds):
        noise = 0.001 * (seed - 1)  # the same in all arms of a seed
        for name, arm in exchange.arms().items():
            if name.startswith("grown"):
                reached = _accuracy(planted * worth_in_the_end + EPOCHS - planted)
                told = summary(test=reached + noise, flops=cost, grown=[kept])
            else:
                kind, _, percent = name.partition("_")
                length = max(1, round(float(percent) / 100 * EPOCHS))
                worth, price = (1.0, 1.0) if kind == "large" else (worth_alone, PRICE)
                told = summary(test=_accuracy(worth * length) + noise, flops=price * length)
            assert arm.name == name
            rows.append(row(name, seed, told))
    return rows


def test_price_and_worth_are_found_again() -> None:
    rows = _runs(worth_alone=0.5, worth_in_the_end=0.75)
    found = exchange.exchange({each.key: each for each in rows}, "digits", EPOCHS)
    assert found is not None
    assert (found.seeds, found.planted) == (3, 6.0)
    assert found.price == pytest.approx(PRICE)
    assert found.cost == pytest.approx(7.5)
    assert found.alone.value == pytest.approx(0.5)
    assert found.in_the_end.value == pytest.approx(0.75)
    assert found.slope.value == pytest.approx(1.0)
    assert found.foretold.value == pytest.approx(6 * (0.5 - PRICE))
    assert found.ahead.value == pytest.approx(6 * (0.75 - PRICE))
    assert found.foretold_equal_epochs.value == pytest.approx(-6 * (1 - 0.5))
    assert found.ahead_equal_epochs.value == pytest.approx(-6 * (1 - 0.75))
    # What all arms of a seed have in common moves neither.
    assert found.ahead.low == pytest.approx(found.ahead.high)


def test_an_epoch_that_is_worth_its_price_gains_nothing() -> None:
    rows = _runs(worth_alone=PRICE, worth_in_the_end=PRICE)
    found = exchange.exchange({each.key: each for each in rows}, "digits", EPOCHS)
    assert found is not None
    assert found.foretold.value == pytest.approx(0.0, abs=1e-9)
    assert found.ahead.value == pytest.approx(0.0, abs=1e-9)


def test_seeds_that_miss_a_run_are_left_out() -> None:
    rows = _runs(worth_alone=0.5, worth_in_the_end=0.5, seeds=2)
    kept = {each.key: each for each in rows}
    del kept["digits", "small_25", 0]
    assert exchange.exchange(kept, "digits", EPOCHS) is None


def test_one_seed_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        exchange.main(["--seeds", "3", "--train", str(Path(__file__).parents[2] / "train.py")])
    assert "at least 2 seeds, got 1" in capsys.readouterr().err


@pytest.mark.slow
def test_real_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = str(Path(__file__).parents[2] / "train.py")
    command = ["--tasks", "digits", "--epochs", "8", "--seeds", "0-1", "--train", train]
    exchange.main([*command, "--directory", str(tmp_path)])
    assert "| digits | 2 |" in capsys.readouterr().out
    told = msgspec.json.decode((tmp_path / "exchange.json").read_bytes())
    assert told["figures"][0]["task"] == "digits"
    exchange.main([*command, "--directory", str(tmp_path)])
    assert "0 runs to do, 36 are there" in capsys.readouterr().out
