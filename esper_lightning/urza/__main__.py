"""Look after a library of artifacts: ``python -m esper_lightning.urza {ls,show,verify,gc}``.

It ends with 0 if all is well; with 1 if something is damaged, unsigned or not there; with 2 if
there is no library, or none that can be used.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from esper_lightning.leyline import EsperError
from esper_lightning.urza.artifact import Artifact
from esper_lightning.urza.errors import BadSignature, Damaged
from esper_lightning.urza.library import DATABASE_NAME, GRACE_S, Library
from esper_lightning.urza.location import ROOT_VARIABLE, default_root
from esper_lightning.urza.manifest import Reference
from esper_lightning.urza.retention import Retention

PROBLEM, UNUSABLE = 1, 2
"""Exit codes beside 0."""

_WIDE = 10_000
"""Columns of a list: names are there to be copied, so they are neither cut nor folded."""

_DAY_S = 24 * 3600.0


def main(arguments: Sequence[str]) -> int:
    """Do what was asked; the exit code."""
    asked = _parser().parse_args(arguments)
    console = Console()
    try:
        root = asked.root or default_root()
        if not (root / DATABASE_NAME).exists():
            print(f"there is no library in {root}; name one with --root", file=sys.stderr)
            return UNUSABLE
        with Library(root) as library:
            code: int = asked.command(library, asked, console)
    except (Damaged, BadSignature) as error:
        print(error, file=sys.stderr)
        return PROBLEM
    except EsperError as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m esper_lightning.urza",
        description="Look after a library of artifacts.",
        epilog="Exit codes: 0 all is well; 1 something is damaged, unsigned or not there; 2 there "
        "is no library that can be used.",
    )
    commands = parser.add_subparsers(required=True, metavar="{ls,show,verify,gc}")

    def add(name: str, told: str, command: object) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=told, description=told[0].upper() + told[1:] + ".")
        added.add_argument(
            "--root",
            type=Path,
            help=f"folder of the library; otherwise {ROOT_VARIABLE}, or the user's cache",
        )
        added.set_defaults(command=command)
        return added

    listing = add("ls", "list versions, without looking at signatures or files", _list)
    listing.add_argument("--kind", help="of the artifacts")
    listing.add_argument("--name", metavar="PATTERN", help="of their names, with * and ?")
    listing.add_argument("--tag", help="that they have")
    listing.add_argument("--limit", type=int, default=100, help="lines (%(default)s)")

    showing = add("show", "show one version: what was said of it, parts, tags, lineage", _show)
    showing.add_argument("kind")
    showing.add_argument("name")
    which = showing.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, help="otherwise the newest that is intact")
    which.add_argument("--tag", help="the version that has it")

    add("verify", "check every signature and read every file; set aside what is damaged", _verify)

    collecting = add("gc", "remove files that nothing needs, and versions that a rule lets go", _gc)
    collecting.add_argument(
        "--keep-versions", type=int, metavar="N", help="of each name, the newest so many"
    )
    collecting.add_argument(
        "--max-age", type=float, metavar="DAYS", help="those stored less than so long ago"
    )
    collecting.add_argument(
        "--max-bytes", type=int, metavar="N", help="the newest whose files take so many bytes"
    )
    collecting.add_argument(
        "--grace",
        type=float,
        metavar="S",
        default=GRACE_S,
        help="leave files alone that are younger than so many seconds (%(default)g)",
    )
    return parser


def _list(library: Library, asked: argparse.Namespace, console: Console) -> int:
    found = library.find(asked.kind, asked.name, tag=asked.tag)
    table = Table("kind", "name", "version", "stored", "bytes", "tags", "damage", box=None)
    for entry in found[: asked.limit]:
        table.add_row(
            entry.reference.kind,
            Text(entry.reference.name),
            str(entry.reference.version),
            _moment(entry.created),
            f"{entry.size:,}",
            Text(", ".join(entry.tags)),
            Text(entry.damage or "", "red"),
        )
    console.width = _WIDE
    console.print(table)
    if len(found) > asked.limit:
        console.print(f"and {len(found) - asked.limit:,} more: narrow it down, or raise --limit")
    return 0


def _show(library: Library, asked: argparse.Namespace, console: Console) -> int:
    artifact = library.get(asked.kind, asked.name, version=asked.version, tag=asked.tag)
    if artifact is None:
        which = f" version {asked.version}" if asked.version is not None else ""
        which += f" with the tag {asked.tag}" if asked.tag is not None else ""
        print(f"there is no {asked.kind} {asked.name}{which}", file=sys.stderr)
        return PROBLEM
    for name, value in _facts(library, artifact):
        console.print(Text.assemble((f"{name:9}", "bold"), value), soft_wrap=True)
    console.print_json(json.dumps(artifact.about))
    return 0


def _facts(library: Library, artifact: Artifact) -> list[tuple[str, str]]:
    return [
        ("version", str(artifact.reference)),
        ("stored", _moment(artifact.created)),
        ("tags", ", ".join(library.tags(artifact.reference)) or "none"),
        ("parents", _named(artifact.parents)),
        ("children", _named(library.children(artifact.reference))),
        *(
            ("part", f"{name}, {part.size:,} bytes, SHA-256 {part.sha256}")
            for name, part in artifact.parts.items()
        ),
    ]


def _verify(library: Library, _: argparse.Namespace, console: Console) -> int:
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading", total=None)
        found = library.verify(
            lambda done, total: progress.update(task, completed=done, total=total)
        )
    for title, wrong in (("damaged", found.damaged), ("unsigned", found.unsigned)):
        for reference, why in wrong.items():
            line = Text.assemble((f"{title}: ", "red"), f"{reference}: {why}")
            console.print(line, soft_wrap=True)
    for said in found.database:
        console.print(Text.assemble(("database: ", "red"), said), soft_wrap=True)
    console.print(
        f"{found.versions:,} versions, {found.files:,} files of {found.size:,} bytes: "
        f"{len(found.damaged)} damaged, {len(found.unsigned)} unsigned"
    )
    return 0 if found.intact else PROBLEM


def _gc(library: Library, asked: argparse.Namespace, console: Console) -> int:
    rule = Retention(
        keep_versions=asked.keep_versions,
        max_age_s=None if asked.max_age is None else asked.max_age * _DAY_S,
        max_bytes=asked.max_bytes,
    )
    removed = library.collect_garbage(
        retention=None if rule == Retention() else rule, grace_s=asked.grace
    )
    console.print(
        f"removed {len(removed.versions):,} versions and {removed.files:,} files of "
        f"{removed.size:,} bytes"
    )
    return 0


def _moment(created: float) -> str:
    return f"{datetime.fromtimestamp(created).astimezone():%Y-%m-%d %H:%M}"


def _named(references: Sequence[Reference]) -> str:
    return "; ".join(map(str, references)) or "none"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
