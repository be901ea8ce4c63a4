"""What a run reached and what it cost, for people, at its end."""

from collections.abc import Iterator, Mapping

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from esper_lightning.leyline import CulledSeed, ParameterValue, RunSummary, SeedStage
from esper_lightning.nissa.quantities import duration, flops, growth_factor, metric_value
from esper_lightning.nissa.stage_look import STAGE_LOOKS, StageLook


def summary_text(summary: RunSummary) -> RenderableType:
    """The end of a run: metrics, size and cost before and after, what was grown and culled and why.

    What was not measured is shown as ``-``.
    """
    blank = Text("")
    return Group(
        _headline(summary),
        blank,
        _metrics(summary),
        blank,
        _cost(summary),
        blank,
        *_grown(summary),
        *_culled(summary.culled),
    )


def _headline(summary: RunSummary) -> Text:
    line = Text(f"run {summary.run_id} {summary.outcome}", style="bold")
    plural = "" if summary.epochs == 1 else "s"
    seed = "" if summary.seed is None else f", seed {summary.seed}"
    line.append(
        f"  {summary.host}, {summary.policy}, {summary.incubation}{seed}; "
        f"{summary.epochs} epoch{plural}, {summary.steps:,} steps, {duration(summary.wall_s)}",
        style="not bold dim",
    )
    return line


def _plain_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    return table


def _without_split(metrics: Mapping[str, float]) -> dict[str, tuple[str, float]]:
    """Metrics by the name that they share between splits: ``val/loss`` becomes ``loss``."""
    shared: dict[str, tuple[str, float]] = {}
    for name, value in metrics.items():
        short = name
        for split in ("validation", "valid", "val", "test"):
            for mark in ("/", "_"):
                short = short.removeprefix(split + mark)
        shared[short] = (name, value)
    return shared


def _metrics(summary: RunSummary) -> Table:
    validation, test = _without_split(summary.validation), _without_split(summary.test)
    table = _plain_table("metric", "validation", "test", right=("validation", "test"))
    for short in dict.fromkeys([*validation, *test]):
        cells = [split.get(short, (short, None)) for split in (validation, test)]
        table.add_row(short, *(metric_value(name, value) for name, value in cells))
    if not table.rows:
        table.add_row("none logged", "-", "-")
    return table


def _cost(summary: RunSummary) -> Table:
    table = _plain_table("", "host", "grown", "factor", right=("host", "grown"))
    table.add_row(
        "parameters",
        f"{summary.host_parameters:,}",
        f"{summary.parameters:,}",
        growth_factor(summary.host_parameters, summary.parameters),
    )
    for label, before, after in (
        (
            "training FLOPs per sample, last epoch",
            summary.host_flops_per_sample,
            summary.flops_per_sample,
        ),
        ("training FLOPs of the run", summary.host_training_flops, summary.training_flops),
    ):
        table.add_row(
            label,
            "-" if before is None else flops(before),
            "-" if after is None else flops(after),
            "-" if before is None or after is None else growth_factor(before, after),
        )
    return table


def _blueprint(name: str, parameters: Mapping[str, ParameterValue]) -> str:
    arguments = ", ".join(f"{key}={value}" for key, value in parameters.items())
    return f"{name}({arguments})" if arguments else name


def _became(
    look: StageLook, slot: str, blueprint: str, facts: list[str], planted: int, ended: int, why: str
) -> RenderableType:
    """One seed: what it was on one line, why it ended so below it."""
    line = Text(f"{look.symbol} {slot}", style=look.style)
    line.append(f"  {blueprint}", style="default")
    epochs = [f"epochs {planted + 1} to {ended + 1}"] if ended >= 0 else []
    line.append("".join(f"  {fact}" for fact in facts + epochs), style="default dim")
    return Group(line, Padding(Text(why or "no reason was given", style="dim"), (0, 0, 0, 2)))


def _grown(summary: RunSummary) -> Iterator[RenderableType]:
    kept = sum(seed.num_parameters for seed in summary.grown)
    live = summary.parameters - summary.host_parameters - kept
    if live > 0:
        yield Text(f"Seeds of {live:,} parameters are still live.")
    if not summary.grown:
        if live <= 0:
            yield Text("Nothing was grown: the network is the host.")
        return
    yield Text("Grown", style="bold")
    for seed in summary.grown:
        yield _became(
            STAGE_LOOKS[SeedStage.FOSSILIZED],
            seed.slot,
            _blueprint(seed.blueprint, seed.parameters),
            [f"+{seed.num_parameters:,} parameters"],
            seed.planted_epoch,
            seed.fossilized_epoch,
            seed.reason,
        )


def _culled(seeds: tuple[CulledSeed, ...]) -> Iterator[RenderableType]:
    if not seeds:
        return
    yield Text("Culled", style="bold")
    for seed in seeds:
        yield _became(
            STAGE_LOOKS[SeedStage.CULLED],
            seed.slot,
            _blueprint(seed.blueprint, seed.parameters),
            [],
            seed.planted_epoch,
            seed.culled_epoch,
            seed.reason,
        )
