"""The comparison as a table."""

from collections.abc import Callable, Sequence
from statistics import mean, stdev

from esper_lightning.evidence.arms import ARMS, Row
from esper_lightning.evidence.report import table
from esper_lightning.leyline import RunSummary


def render(rows: Sequence[Row]) -> str:
    """A Markdown table: mean and standard deviation over seeds, one line an arm."""
    lines = []
    for arm in ARMS:
        told = [row.summary for row in rows if row.arm == arm]
        columns = [
            _spread(told, lambda s: 100 * s.test["test/acc"], 2),
            _spread(told, lambda s: 100 * s.validation["val/acc"], 2),
            _spread(told, lambda s: float(s.parameters), 0),
            _spread(told, lambda s: (s.training_flops or 0.0) / 1e9, 2),
            _spread(told, lambda s: s.wall_s, 1),
        ]
        lines.append([arm, str(len(told)), *columns])
    header = ["arm", "runs", "test accuracy %", "val accuracy %", "parameters", "training GFLOP"]
    return f"{table([*header, 'wall s'], lines)}\n\n{_paired(rows)}"


def _paired(rows: Sequence[Row]) -> str:
    by_arm = {
        arm: {row.seed: row.summary.test["test/acc"] for row in rows if row.arm == arm}
        for arm in ARMS
    }
    told = []
    for rival in ARMS[:2]:
        gaps = [100 * (by_arm["grown"][seed] - by_arm[rival][seed]) for seed in by_arm["grown"]]
        each = ", ".join(f"{gap:+.2f}" for gap in gaps)
        told.append(f"Grown minus {rival}, paired by seed: {mean(gaps):+.2f} points ({each}).")
    return "\n".join(told)


def _spread(
    summaries: Sequence[RunSummary], value: Callable[[RunSummary], float], digits: int
) -> str:
    values = [value(summary) for summary in summaries]
    spread = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):,.{digits}f} ± {spread:,.{digits}f}"
