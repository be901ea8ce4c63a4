"""Policies from recorded runs, and whether they are good enough.

``python -m esper_lightning.simic clone|gather|listen|show|validate|publish|withdraw`` ends with 0,
with 1 if a policy did not pass, or with 2 if the runs, or what is kept of them, cannot be used.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from esper_lightning.leyline import EsperError, InvalidArgument
from esper_lightning.simic.cloning import clone
from esper_lightning.simic.comparison import agreement
from esper_lightning.simic.experience import command as experience
from esper_lightning.simic.lesson import Lesson, journals, lessons
from esper_lightning.simic.validation import command as validation
from esper_lightning.tamiyo.learned import StoredPolicy

log = logging.getLogger(__name__)

UNUSABLE = 2

HELD_OUT = 5
"""Without other runs to judge by, every fifth is not learned from."""


def main(arguments: Sequence[str]) -> int:
    """Do what was asked; the exit code."""
    asked = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        code: int | None = asked.do(asked)
    except (EsperError, OSError) as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    return code or 0


def _clone(asked: argparse.Namespace) -> None:
    runs = [lessons(path) for path in journals(asked.runs)]
    others = [lessons(path) for path in journals(asked.held_out)]
    if not others:
        others = runs[::HELD_OUT]
        runs = [run for number, run in enumerate(runs) if number % HELD_OUT]
    if not runs:
        raise InvalidArgument(
            f"{len(others)} runs are too few: one in {HELD_OUT} is not learned from"
        )
    learned_from, held_out = _joined(runs), _joined(others)
    log.info(
        "%d boundaries of %d runs, %d of %d held-out runs",
        len(learned_from),
        len(runs),
        len(held_out),
        len(others),
    )
    cloned = clone(learned_from, held_out, epochs=asked.epochs, seed=asked.seed)
    told = agreement(cloned.network, held_out)
    provenance = {
        "by": "behaviour cloning",
        "teacher": "heuristic",
        "runs": len(runs),
        "boundaries": len(learned_from),
        "held_out_runs": len(others),
        "epoch": cloned.epoch,
        "seed": asked.seed,
        "agreement": msgspec.to_builtins(told),
    }
    stored = StoredPolicy.of(
        cloned.network, name=asked.name, version=asked.version, provenance=provenance
    )
    asked.out.write_bytes(stored.to_bytes())
    for name, value in msgspec.to_builtins(told).items():
        log.info("%-14s %s", name, f"{value:.3f}" if isinstance(value, float) else value)
    log.info("written to %s; use it with tamiyo=learned tamiyo.policy.policy=%s", *[asked.out] * 2)


def _joined(runs: Sequence[Sequence[Lesson]]) -> list[Lesson]:
    return [lesson for run in runs for lesson in run]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m esper_lightning.simic",
        description="Train a policy from recorded runs, and keep them as experience.",
        epilog="Exit codes: 0 it was done; 1 a policy did not pass; 2 the runs cannot be used.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    cloning = commands.add_parser("clone", help="learn to do what the heuristic does")
    cloning.add_argument("runs", nargs="+", metavar="RUN", help="run, or folder of runs")
    cloning.add_argument(
        "--held-out",
        nargs="+",
        default=[],
        metavar="RUN",
        help=f"runs to judge by; otherwise every {HELD_OUT}th of the others",
    )
    cloning.add_argument("--out", type=Path, default=Path("policy.safetensors"))
    cloning.add_argument("--name", default="learned", help="of the policy (learned)")
    cloning.add_argument("--version", type=int, default=1, help="of the policy (1)")
    cloning.add_argument("--epochs", type=int, default=30, help="(30)")
    cloning.add_argument("--seed", type=int, default=0, help="(0)")
    cloning.set_defaults(do=_clone)
    experience.add_parsers(commands)
    validation.add_parsers(commands)
    return parser


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
