"""From rows to outcomes, goals and tables."""

import math
from pathlib import Path

import pytest
from frontier_rows import CULLED, KEPT, row, summary

from esper_lightning.evidence.frontier.arms import CHEAP_SWEEP, FRONTIER, RIVALS, SWEEP
from esper_lightning.evidence.frontier.figures import save_figures
from esper_lightning.evidence.frontier.goals import judge
from esper_lightning.evidence.frontier.outcomes import outcomes
from esper_lightning.evidence.frontier.rows import Row
from esper_lightning.evidence.frontier.savings import smallest_steps
from esper_lightning.evidence.frontier.tables import report
from esper_lightning.evidence.scaling_law import growing_share

STATIC = (*RIVALS, *SWEEP, *CHEAP_SWEEP)


def _rows(*, grown: float, rival: float, seeds: int = 6) -> list[Row]:
    rows = []
    for seed in range(seeds):
        shift = seed / 1000
        rows += [
            row(
                "grown",
                seed,
                summary(test=grown + shift, flops=5e8, grown=[KEPT], culled=[CULLED]),
                curve=[(1e8, 0.5), (2e8, 0.91), (3e8, 0.92), (5e8, 0.93)],
            ),
            *(
                row(arm, seed, summary(test=rival + shift, val=0.9))
                for arm in ("retrained", "widened", "widened_equal_flops", "retrained_equal_flops")
            ),
        ]
    return rows


def test_a_search_reports_the_choice_of_validation_at_the_cost_of_all() -> None:
    rows = [
        row(
            arm,
            0,
            summary(test=0.5 + number / 10, val=0.9 - abs(number - 2) / 10, flops=10.0**number),
        )
        for number, arm in enumerate(SWEEP)
    ]
    found = outcomes(rows, "digits")["best_size"][0]
    assert found.test == pytest.approx(70.0)  # not 90, which only test would choose
    assert found.flops == 11111.0
    assert found.wall_s == 50.0


def test_a_search_with_a_run_missing_is_none() -> None:
    rows = [row(arm, 0, summary(test=0.5)) for arm in SWEEP[1:]]
    assert "best_size" not in outcomes(rows, "digits")


def test_who_knows_the_size_takes_the_best_at_equal_flops() -> None:
    """By mean validation, one size for all seeds, and for the cost of one run."""
    names = list(FRONTIER)
    rows = [
        row(arm, seed, summary(test=0.5 + number / 10, val=0.9 - abs(number - 2) / 10, flops=1e3))
        for number, arm in enumerate(names)
        for seed in range(2)
    ]
    rows.append(row(names[3], 1, summary(test=0.1, val=0.95)))  # the best there, not on average
    found = outcomes(rows, "digits")["known_size"]
    assert [outcome.test for outcome in found.values()] == [pytest.approx(70.0)] * 2
    assert {outcome.flops for outcome in found.values()} == {1e3}


def test_nobody_knows_a_size_where_there_is_no_choice() -> None:
    first, second, *_ = FRONTIER
    rows = [row(first, 0, summary(test=0.5))]
    assert "known_size" not in outcomes(rows, "digits")
    rows.append(row(second, 1, summary(test=0.5)))
    assert "known_size" not in outcomes(rows, "digits"), "no seed has both"


def test_the_best_of_the_frontier_is_chosen_by_common_seeds_and_told_with_all_it_has() -> None:
    first, second, *_ = FRONTIER
    vals = {(first, 0): 0.8, (first, 1): 0.99, (second, 0): 0.9, (second, 2): 0.1}
    rows = [row(arm, seed, summary(test=0.5, val=val)) for (arm, seed), val in vals.items()]
    assert list(outcomes(rows, "digits")["known_size"]) == [0, 2], "the second is better with 0"


def test_goals_are_met_by_a_clear_winner() -> None:
    rows = _rows(grown=0.95, rival=0.9)
    rows += [row(arm, s, summary(test=0.8)) for arm in STATIC for s in range(6)]
    findings = [found["digits"] for _, found in judge({"digits": outcomes(rows, "digits")})]
    assert [finding is not None and finding.met for finding in findings] == [True] * 7
    fewer = [each for each in rows if each.arm != "size_2_equal_flops"]
    last = judge({"digits": outcomes(fewer, "digits")})[-1][1]["digits"]
    assert last is not None
    assert last.text.endswith("host alone, equal FLOPs; 9 of 10 rivals, chosen by 6 seeds")
    assert not last.met, "one that was not run may be the best"
    cost = findings[4]
    assert cost is not None
    # The median of three values first reaches 0.90 at the third epoch, 3e8 of 1e9.
    assert cost.text.startswith("FLOPs 0.30 [0.30, 0.30], wall 0.60")


def test_goals_are_not_met_by_a_loser() -> None:
    rows = _rows(grown=0.85, rival=0.9)
    findings = [found["digits"] for _, found in judge({"digits": outcomes(rows, "digits")})]
    assert [finding.met for finding in findings[:4] if finding is not None] == [False] * 4
    assert findings[5] is None, "there was no sweep"
    assert findings[6] is None, "nor a frontier"


def test_a_run_that_never_gets_there_is_charged() -> None:
    rows = _rows(grown=0.95, rival=0.9)
    rows = [*rows, *(row("widened", s, summary(test=0.9, val=0.99)) for s in range(6))]
    finding = judge({"digits": outcomes(rows, "digits")})[4][1]["digits"]
    assert finding is not None
    assert finding.text.startswith("FLOPs 2.00")
    assert not finding.met


def test_the_report_tells_everything_with_its_command() -> None:
    text = report(_rows(grown=0.95, rival=0.9), "the command")
    assert "`the command`: 30 runs; commit abc" in text
    assert "| host widened to the grown size | 6 | 90.25 [" in text
    assert "+5.00 [+5.00, +5.00]" in text
    assert "| digits | parallel_conv | 6 | 0 |" in text
    assert "| digits | parallel_mlp | 0 | 6 |" in text


def test_figures_are_drawn(tmp_path: Path) -> None:
    by_task = {"digits": outcomes(_rows(grown=0.95, rival=0.9), "digits")}
    paths = save_figures(by_task, tmp_path)
    assert [path.name for path in paths] == ["frontier.png", "differences.png"]
    assert all(path.stat().st_size > 10_000 for path in paths)


def test_on_the_way_growth_is_compared_at_equal_flops() -> None:
    """Of a smoothed curve, what was reached before so many FLOPs, paired by seed."""
    rows = [
        row(
            "grown",
            0,
            summary(test=0.9, flops=8e8),
            curve=[(1e8, 0.50), (2e8, 0.60), (4e8, 0.70), (6e8, 0.80), (8e8, 0.90)],
        ),
        row(
            "size_1_equal_flops",
            0,
            summary(test=0.9, flops=8e8),
            curve=[(3e8, 0.40), (6e8, 0.90), (8e8, 0.50)],
        ),
    ]
    (line,) = [each for each in report(rows, "it").splitlines() if "| digits | size 1" in each]
    cells = [cell.strip() for cell in line.split("|")][3:6]
    assert cells == ["", "+20.00", "+5.00"]  # medians: 60 - 40, 70 - 65; nothing at a quarter yet


def test_without_a_rival_of_equal_flops_nothing_is_told_of_the_way() -> None:
    assert "On the way" not in report([row("grown", 0, summary(test=0.9))], "it")


def test_growing_can_save_what_a_smaller_network_is_ahead_of_the_best_one_on_its_way() -> None:
    """Means over seeds of what it saves until a point that both networks reach with every seed."""
    curves = {
        "size_1_equal_flops": [(1e8, 0.40), (2e8, 0.42), (4e8, 0.44), (8e8, 0.50)],
        "size_2_equal_flops": [(4e8, 0.42), (5e8, 0.43), (6e8, 0.46), (8e8, 0.60)],
        "size_3_equal_flops": [(5e8, 0.39), (7e8, 0.43), (8e8, 0.45), (8e8, 0.50)],
    }
    val = {"size_1_equal_flops": 0.5, "size_2_equal_flops": 0.6, "size_3_equal_flops": 0.5}
    rows = [
        row(name, seed, summary(test=0.5, val=val[name], flops=8e8), curve=curve)
        for seed in range(2)
        for name, curve in curves.items()
    ]
    told = report(rows, "it").split("## What growing could save")[1].split("##")[0]
    (line,) = [each for each in told.splitlines() if each.startswith("| digits")]
    cells = [each.strip() for each in line.split("|")][2:7]
    # Medians of the last three: 40, 41, 42, 44 of size 1; 42, 42.5, 43, 46 of size 2.
    assert cells == ["size 2, equal FLOPs", "size 1, equal FLOPs", "40", "0.30", "37.5%"], (
        "size 3 is never sooner"
    )


@pytest.mark.parametrize("flops", [4e9, 0.25e9])
def test_a_share_of_the_flops_is_worth_what_more_of_them_bring(flops: float) -> None:
    rows = []
    for seed in range(3):
        long = 0.5 + seed / 100
        reached = long + (0.02 if flops > 1e9 else -0.02)  # two doublings, a point each
        rows += [
            row("host", seed, summary(test=long, flops=1e9)),
            row("host_equal_flops", seed, summary(test=reached, flops=flops)),
        ]
    told = report(rows, "it").split("## What growing could save")[1].split("##")[0]
    header, _, line = told.strip().splitlines()
    assert header.split("|")[-3:-1] == [" for 5% of them ", " for 24% of them "]
    cells = [each.strip() for each in line.split("|")][1:-1]
    assert cells[:4] == ["digits", "host alone", f"{flops / 1e9:.2f}", "+1.00 [+1.00, +1.00]"]
    assert [float(each) for each in cells[4:]] == [
        pytest.approx(-math.log2(growing_share(0.34, 0.28)), abs=0.005),
        pytest.approx(-math.log2(growing_share(0.077, 0.76)), abs=0.005),
    ]


@pytest.mark.parametrize("flops", [1.1e9, 0.0])
def test_what_costs_as_much_or_was_not_counted_says_nothing_of_more_flops(flops: float) -> None:
    rows = [
        row("host", 0, summary(test=0.5, flops=1e9)),
        row("host_equal_flops", 0, summary(test=0.6, flops=flops)),
    ]
    assert "could save" not in report(rows, "it")


def test_nothing_can_be_saved_where_there_is_no_frontier() -> None:
    assert "could save" not in report([row("grown", 0, summary(test=0.9))], "it")


def lawful(size: float, flops: float) -> float:
    """The loss of a static network of a scaling law."""
    return float(1.6 + 3e4 * size**-0.75 + 300 * (flops / size) ** -0.7)


def lawful_rows() -> list[Row]:
    """Static networks of four sizes that cost the same, and a grown one that is the smallest."""
    rows = []
    for name, size in (
        ("size_1_equal_flops", 8e6),
        ("size_2_equal_flops", 1.2e7),
        ("size_3_equal_flops", 2e7),
        ("size_4_equal_flops", 4e7),
        ("grown", 8e6),
    ):
        spent = [each * 2e10 for each in range(1, 101)]
        told = summary(test=0.5, val=size / 1e8, flops=2e12)
        losses = [lawful(size, each) for each in spent]
        curve = [(each, 0.5) for each in spent]
        rows.append(row(name, 0, told, task="shakespeare", curve=curve, objective=losses))
    return rows


def test_flops_until_losses_on_the_way_of_the_best_network() -> None:
    told = report(lawful_rows(), "it").split("GFLOP until a validation loss of")[1]
    header, _, *lines = told.split("\n\n")[0].splitlines()
    by_name = {each.split("|")[1].strip(): each.split("|")[2:-1] for each in lines}
    assert by_name["grown"] == by_name["size 1, equal FLOPs"]
    best = [float(cell.replace(",", "")) for cell in by_name["size 4, equal FLOPs"]]
    # Losses have two digits, and a median of three is an epoch late, which costs 20 GFLOP.
    assert best == pytest.approx([100, 200, 400, 800, 1200, 1600, 1900], abs=60)
    for loss, spent in zip(header.split("|")[1:-1], best, strict=True):
        assert lawful(4e7, spent * 1e9) <= float(loss) + 0.005
    late = by_name["size 1, equal FLOPs"]
    assert float(late[0]) < best[0], "a small network learns more for its FLOPs at first"
    assert late[-1].strip() == "", "it never comes to the last of them"
    least = [cell.strip() for cell in by_name.pop("the smallest steps of the frontier")]
    assert least[0] == late[0].strip()
    soonest = min(float(told[4].replace(",", "")) for told in by_name.values())
    share = float(least[4].replace(",", "")) / soonest
    assert growing_share(0.75, 0.7) < share < growing_share(0.75, 0.7, num_sizes=2) + 0.02
    assert least[6] == "", "the rate comes down"


def test_the_smallest_steps_change_to_whoever_is_fastest_from_here() -> None:
    small, large, stuck = [10.0, 30.0, 100.0], [25.0, 50.0, 80.0], [12.0, None, None]
    assert smallest_steps([small, large, stuck]) == [10.0, 30.0, 60.0]
    assert smallest_steps([stuck]) == [12.0, None, None]
    assert smallest_steps([[None, 5.0, 6.0], [4.0, 8.0, None]]) == [4.0, 8.0, 9.0]
