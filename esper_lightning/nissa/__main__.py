"""Look at runs, and rehearse failures: ``python -m esper_lightning.nissa {explain,drill}``.

It ends with 0 if all is well; with 1 if a record is damaged or a drill failed; with 2 if there is
none, or none that can be used.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from esper_lightning.leyline import DecodeError, EsperError, InvalidArgument, RunSummary, decode
from esper_lightning.nissa.explanation import explanation
from esper_lightning.nissa.journal import JOURNAL_NAME, read_journal

PROBLEM, UNUSABLE = 1, 2
"""Exit codes beside 0."""

ALL = "all"
"""Stands for every drill."""

SUMMARY_NAME = "summary.json"
"""Of the run's summary, beside its journal."""


def main(arguments: Sequence[str]) -> int:
    """Do what was asked; the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        code: int = asked.command(asked)
    except DecodeError as error:
        print(error, file=sys.stderr)
        return PROBLEM
    except (EsperError, OSError) as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m esper_lightning.nissa",
        description="Look at runs, and rehearse failures.",
        epilog="Exit codes: 0 all is well; 1 a record is damaged or a drill failed; 2 there is "
        "none that can be used.",
    )
    commands = parser.add_subparsers(required=True, metavar="{explain,drill}")

    def add(name: str, told: str, command: object) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=told, description=told[0].upper() + told[1:] + ".")
        added.set_defaults(command=command)
        return added

    explaining = add("explain", "tell a run decision by decision, as a page of Markdown", _explain)
    explaining.add_argument("run", type=Path, metavar="RUN", help=f"its folder, or {JOURNAL_NAME}")
    explaining.add_argument("--out", type=Path, metavar="FILE", help="to write (standard output)")
    drilling = add("drill", "let something fail in a short run, and see what is done", _drill)
    drilling.add_argument("drill", nargs="?", help="its name, or all; without, they are listed")
    return parser


def _drill(asked: argparse.Namespace) -> int:
    # Here, since it imports all that trains.
    from esper_lightning.nissa.drills import (  # pylint: disable=import-outside-toplevel
        DRILLS,
        play,
    )

    if asked.drill is None:
        for drill in DRILLS.values():
            print(f"{drill.name:<20} {drill.text}")
        return 0
    if asked.drill not in {*DRILLS, ALL}:
        raise InvalidArgument(
            f"there is no drill {asked.drill!r}; there are {', '.join(DRILLS)}, and {ALL}"
        )
    names = tuple(DRILLS) if asked.drill == ALL else (asked.drill,)
    failed = [name for name in names if play(DRILLS[name], partial(print, flush=True))]
    return PROBLEM if failed else 0


def _explain(asked: argparse.Namespace) -> int:
    journal = _journal(asked.run)
    if asked.out is not None and asked.out.resolve().parent == journal.resolve().parent:
        names = {JOURNAL_NAME, SUMMARY_NAME, journal.name}
        if asked.out.name in names:
            raise InvalidArgument(f"--out {asked.out} is a record of the run; name another file")
    page = explanation(read_journal(journal), _summary(journal.with_name(SUMMARY_NAME)))
    if asked.out is None:
        print(page, end="")
    else:
        asked.out.write_text(page, encoding="utf-8")
    return 0


def _journal(run: Path) -> Path:
    """The journal of a run.

    Raises:
        InvalidArgument: there is none.
    """
    journal = run / JOURNAL_NAME if run.is_dir() else run
    if not journal.is_file():
        raise InvalidArgument(
            f"there is no journal {journal}; name the folder of a run, or its {JOURNAL_NAME}"
        )
    return journal


def _summary(path: Path) -> RunSummary | None:
    if not path.is_file():
        return None
    summary: RunSummary = decode(path.read_bytes(), RunSummary, what=str(path))
    return summary


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
