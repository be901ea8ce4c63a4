"""Look at runs: ``python -m esper_lightning.nissa {explain}``.

It ends with 0 if all is well; with 1 if a record is damaged; with 2 if there is none, or none that
can be used.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from esper_lightning.leyline import DecodeError, EsperError, InvalidArgument, RunSummary, decode
from esper_lightning.nissa.explanation import explanation
from esper_lightning.nissa.journal import JOURNAL_NAME, read_journal

PROBLEM, UNUSABLE = 1, 2
"""Exit codes beside 0."""

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
        description="Look at runs.",
        epilog="Exit codes: 0 all is well; 1 a record is damaged; 2 there is none that can be "
        "used.",
    )
    commands = parser.add_subparsers(required=True, metavar="{explain}")

    def add(name: str, told: str, command: object) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=told, description=told[0].upper() + told[1:] + ".")
        added.set_defaults(command=command)
        return added

    explaining = add("explain", "tell a run decision by decision, as a page of Markdown", _explain)
    explaining.add_argument("run", type=Path, metavar="RUN", help=f"its folder, or {JOURNAL_NAME}")
    explaining.add_argument("--out", type=Path, metavar="FILE", help="to write (standard output)")
    return parser


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
