"""Compile ahead what seeds of a host may need: ``python -m esper_lightning.tezzeret compile``.

docs/compiling.md explains it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from esper_lightning import karn
from esper_lightning.conf.slots import slots_of
from esper_lightning.leyline import EsperError, InvalidArgument
from esper_lightning.tezzeret import MIN_SPEEDUP, Outcome, Recipe, Workshop, recipe_for
from esper_lightning.urza import Library, default_root


def main(arguments: Sequence[str]) -> None:
    """Work out the recipes, make each, say what became of them."""
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.tezzeret", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("compile", help="compile ahead for the slots of a host")
    make.add_argument("--host", help="cnn, resnet, gpt, mlp, or another of the group host")
    which = make.add_mutually_exclusive_group(required=True)
    which.add_argument("--all", action="store_true", help="every production blueprint that fits")
    which.add_argument("--blueprints", nargs="+", metavar="NAME", help="these, of any tier")
    make.add_argument("--batch", type=int, help="rows of a batch; by default that of the data")
    make.add_argument("--root", type=Path, default=default_root(), help="folder of the library")
    make.add_argument("--limit", type=int, default=1, help="processes at a time")
    make.add_argument("--timeout", type=float, default=300.0, help="seconds for a step of one")
    make.add_argument("--min-speedup", type=float, default=MIN_SPEEDUP, help="that is worth it")
    make.add_argument("--again", action="store_true", help="what was decided before, too")
    make.add_argument("overrides", nargs="*", help="as for train.py: data=cifar10 host.width=8")
    asked = parser.parse_args(arguments)
    try:
        sys.exit(_compile(asked))
    except (EsperError, OSError) as error:
        sys.exit(f"not compiled: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; what was decided is kept, the same command goes on from there")


def recipes_of(asked: argparse.Namespace) -> list[Recipe]:
    """A recipe for each blueprint in each slot that it fits, each shape once.

    Where seeds begin apart from the host, one without a gradient to the input comes first.
    """
    named = asked.blueprints or []
    names = [name for name in named if name.isidentifier()]
    more = [override for override in named if override not in names]  # --blueprints took them
    overrides = [*([f"host={asked.host}"] if asked.host else []), *more, *asked.overrides]
    slots = slots_of(overrides, data_kind=LightningDataModule, module_kind=LightningModule)
    if slots.threads is not None:
        torch.set_num_threads(slots.threads)
    batch = slots.batch if asked.batch is None else asked.batch
    if batch is None:
        raise InvalidArgument("this data module has no batch_size; name one with --batch")
    chosen = karn.query() if asked.all else [karn.get(name) for name in names]
    found = {
        str(made): made
        for shape in slots.shapes.values()
        for blueprint in chosen
        if blueprint.fits(shape)
        for flows in ([False, True] if slots.apart else [True])
        for made in [recipe_for(blueprint, shape, batch=batch, input_requires_grad=flows)]
    }
    if not found:
        raise InvalidArgument(f"none of {[each.name for each in chosen]} fits a slot of this host")
    return list(found.values())


def _compile(asked: argparse.Namespace) -> int:
    console = Console()
    recipes = recipes_of(asked)
    outcomes: dict[str, Outcome] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    library = Library(asked.root)
    workshop = Workshop(
        library, limit=asked.limit, timeout=asked.timeout, min_speedup=asked.min_speedup
    )
    with workshop, Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("compiling", total=len(recipes))

        def done(made: Recipe, outcome: Outcome) -> None:
            outcomes[str(made)] = outcome
            told = "compiled" if outcome.is_compiled else "eager"
            progress.print(f"{made}: {told}, {outcome.reason}", highlight=False)
            progress.advance(task)

        workshop.make_all(recipes, done=done, again=asked.again)
    console.print(_table(recipes, outcomes))
    compiled = sum(outcome.is_compiled for outcome in outcomes.values())
    console.print(f"{compiled} compiled, {len(outcomes) - compiled} eager, in {library.root}")
    return 0


def _table(recipes: Sequence[Recipe], outcomes: dict[str, Outcome]) -> Table:
    table = Table("blueprint", "slot", "eager ms", "compiled ms", "eager / compiled", "runs")
    for made in recipes:
        outcome = outcomes[str(made)]
        figures = (outcome.eager_ms, outcome.compiled_ms, outcome.speedup)
        told = ["-" if figure is None else f"{figure:.2f}" for figure in figures]
        table.add_row(
            made.blueprint, str(made.shape), *told, "compiled" if outcome.is_compiled else "eager"
        )
    return table


if __name__ == "__main__":
    main(sys.argv[1:])
