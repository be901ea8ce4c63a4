"""What an epoch of the small network is worth, on runs that never were, and on a few real ones."""

from pathlib import Path

import msgspec
import pytest
from frontier_rows import KEPT, row, summary

from esper_lightning.evidence import exchange
from esper_lightning.evidence.frontier.matched import ROWS_NAME
from esper_lightning.evidence.frontier.rows import Row, append

TRAIN = str(Path(__file__).parents[2] / "train.py")
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


def test_a_curve_that_falls_is_measured_as_it_is() -> None:
    """What is measured at equal epochs is the difference of the two arms, whatever the scale."""
    rows = _runs(worth_alone=0.5, worth_in_the_end=0.75)
    dip = _accuracy(EPOCHS - 4)  # below the shorter runs
    kept = {
        each.key: msgspec.structs.replace(
            each, summary=msgspec.structs.replace(each.summary, test={"test/acc": dip})
        )
        if each.arm == "large_100"
        else each
        for each in rows
    }
    found = exchange.exchange(kept, "digits", EPOCHS)
    assert found is not None
    reached = _accuracy(6 * 0.75 + 6)
    assert found.ahead_equal_epochs.value == pytest.approx(100 * (reached - dip))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seeds", "3"], "at least 2 seeds, got 1"),
        (["--jobs", "0"], "at least 1, got 0"),
        (["--train", "nowhere.py"], "nowhere.py is not there"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        exchange.main(["--train", TRAIN, *arguments])
    assert told in capsys.readouterr().err


def test_runs_of_another_length_are_not_taken_for_these(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = msgspec.structs.replace(summary(test=0.9), epochs=20)
    append(tmp_path / ROWS_NAME, row("grown", 0, short))
    with pytest.raises(SystemExit):
        exchange.main(["--train", TRAIN, "--tasks", "digits", "--directory", str(tmp_path)])
    assert "have 20 epochs, not 12" in capsys.readouterr().err


@pytest.mark.slow
def test_real_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--tasks", "digits", "--seeds", "0-1", "--train", TRAIN, "--directory"]
    exchange.main([*command, str(tmp_path), "++trainer.limit_train_batches=3"])
    assert "| digits | 2 |" in capsys.readouterr().out
    told = msgspec.json.decode((tmp_path / "exchange.json").read_bytes())
    assert [each["planted"] for each in told["figures"]] == [1.0, 3.0, 6.0, 8.0]
    exchange.main([*command, str(tmp_path)])
    assert "0 runs to do, 36 are there" in capsys.readouterr().out
