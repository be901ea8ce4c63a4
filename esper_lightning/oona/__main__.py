"""Look at a bus: ``python -m esper_lightning.oona {tail,health,dead-letters,replay,deliver}``.

It ends with 0 if all is well; with 1 if something was refused or is not there; with 2 if the bus
cannot be used.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from esper_lightning.leyline import EsperError, encode
from esper_lightning.oona.admission import Admission, Refused
from esper_lightning.oona.dead_letters import DeadLetter, dead_letters, replay
from esper_lightning.oona.health import health_of
from esper_lightning.oona.outbox import OUTBOX_NAME, Outbox
from esper_lightning.oona.publisher import Publisher
from esper_lightning.oona.routing import FIELD
from esper_lightning.oona.server import FAILURES, Connection, connect
from esper_lightning.oona.settings import Role, Settings

PROBLEM, UNUSABLE = 1, 2
"""Exit codes beside 0."""

ROLES = [role.value for role in Role]


def main(arguments: Sequence[str]) -> int:
    """Do what was asked; the exit code."""
    asked = _parser().parse_args(arguments)
    console = Console(soft_wrap=True)
    try:
        settings = Settings.from_environment(asked.url)
        if asked.command is _deliver and not _finds_outbox(asked):
            return PROBLEM
        with connect(settings.url, folder=asked.folder) as connection:
            code: int = asked.command(connection, settings, asked, console)
    except (*FAILURES, EsperError) as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m esper_lightning.oona",
        description="Look at a message bus.",
        epilog="Exit codes: 0 all is well; 1 something was refused or is not there; 2 the bus "
        "cannot be used.",
    )
    commands = parser.add_subparsers(
        required=True, metavar="{tail,health,dead-letters,replay,deliver}"
    )

    def add(name: str, told: str, command: object) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=told, description=told[0].upper() + told[1:] + ".")
        added.add_argument("--url", help="of the bus, as oona.url; otherwise REDIS_URL, or auto")
        added.add_argument("--folder", type=Path, help="of a run whose embedded bus it is")
        added.set_defaults(command=command)
        return added

    tailing = add("tail", "print messages as JSON, one a line, as they come", _tail)
    tailing.add_argument("--role", choices=ROLES, action="append", help="of streams (all)")
    tailing.add_argument("--from-start", action="store_true", help="what is there already, too")
    tailing.add_argument("--no-follow", action="store_true", help="stop when nothing more is there")
    add("health", "tell how full streams are and who is behind", _health)
    letters = add("dead-letters", "list what took no effect, and why", _dead_letters)
    letters.add_argument("--role", choices=ROLES, action="append", help="of streams (all)")
    again = add("replay", "put dead letters back into their stream", _replay)
    again.add_argument("letters", nargs="+", metavar="ROLE/ID", help="as dead-letters lists them")
    delivering = add("deliver", "send what an ended process left in its outbox", _deliver)
    delivering.add_argument("outbox", type=Path, help=f"{OUTBOX_NAME}, or the run's folder")
    delivering.add_argument("--timeout", type=float, default=60.0, help="seconds (%(default)s)")
    return parser


def _roles(asked: argparse.Namespace) -> list[Role]:
    return [Role(each) for each in asked.role or ROLES]


# -- tail -----------------------------------------------------------------------------------------


def _tail(
    connection: Connection, settings: Settings, asked: argparse.Namespace, console: Console
) -> int:
    admission = Admission(connection.signer())
    streams = {settings.streams[role]: role for role in _roles(asked)}
    last = {stream: "0" if asked.from_start else _newest(connection, stream) for stream in streams}
    code = 0
    while True:
        some = False
        for stream, entry_id, fields in _entries(connection, last):
            some, last[stream] = True, entry_id
            try:
                received = admission.admit(streams[stream], fields.get(FIELD))
            except Refused as refused:
                if refused.is_expired:
                    continue
                code = PROBLEM
                console.print(f"[red]{escape(f'{stream} {entry_id} refused, {refused}')}[/red]")
                continue
            told = encode(
                {
                    "stream": stream,
                    "entry": entry_id,
                    "kind": received.envelope.kind,
                    "source": received.envelope.source,
                    "created_at": received.envelope.created_at,
                    "message": received.message,
                }
            )
            print(told.decode(), flush=True)
        if asked.no_follow and not some:
            return code


def _newest(connection: Connection, stream: str) -> str:
    found = connection.client.xrevrange(stream, count=1)
    return str(found[0][0].decode()) if found else "0"


def _entries(
    connection: Connection, last: dict[str, str]
) -> Iterator[tuple[str, str, dict[bytes, bytes]]]:
    """What comes within a fifth of a second."""
    some = False
    for stream, after in last.items():
        for entry_id, fields in connection.read(stream, after=after.encode(), block_ms=None):
            some = True
            yield stream, entry_id.decode(), fields
    if not some:
        time.sleep(0.2)


# -- health ---------------------------------------------------------------------------------------


def _health(
    connection: Connection, settings: Settings, _: argparse.Namespace, console: Console
) -> int:
    found = health_of(connection.client, settings)
    table = Table("stream", "role", "entries", "at most", "dead letters", "group", "lag", "pending")
    for stream in found.streams:
        row = [escape(stream.name), stream.role.value, str(stream.length), str(stream.most)]
        row.append(str(stream.dead_letters))
        groups = [
            [escape(group.name), "?" if group.lag is None else str(group.lag), str(group.pending)]
            for group in stream.groups
        ] or [["", "", ""]]
        for group in groups:
            table.add_row(*row, *group)
            row = [""] * len(row)
    memory = "" if found.memory is None else f", {found.memory / 2**20:.1f} MiB"
    bound = "" if found.most_memory is None else f" of {found.most_memory / 2**20:.0f}"
    console.print(f"{escape(connection.address)}: version {found.version}{memory}{bound}")
    console.print(table)
    return 0


# -- dead letters ---------------------------------------------------------------------------------


def _dead_letters(
    connection: Connection, settings: Settings, asked: argparse.Namespace, console: Console
) -> int:
    # A letter's name is there to be copied.
    table = Table(Column("letter", no_wrap=True), "buried", "group", "bytes", "reason")
    for role in _roles(asked):
        for letter in dead_letters(connection.client, settings, role):
            when = datetime.fromtimestamp(letter.buried_at).strftime("%Y-%m-%d %H:%M:%S")
            table.add_row(
                f"{role.value}/{letter.id}",
                when,
                escape(letter.group),
                str(len(letter.sealed)),
                escape(letter.reason),
            )
    console.print(table)
    return 0


def _replay(
    connection: Connection, settings: Settings, asked: argparse.Namespace, console: Console
) -> int:
    code = 0
    for named in asked.letters:
        role, _, identifier = named.partition("/")
        letter = _find(connection, settings, role, identifier)
        if letter is None:
            print(f"there is no dead letter {named!r}; dead-letters lists them", file=sys.stderr)
            code = PROBLEM
            continue
        replay(connection.client, settings, letter)
        console.print(f"{named} is in {settings.streams[letter.role]} again")
    return code


def _find(
    connection: Connection, settings: Settings, role: str, identifier: str
) -> DeadLetter | None:
    if role not in ROLES:
        return None
    letters = dead_letters(connection.client, settings, Role(role))
    return next((each for each in letters if each.id == identifier), None)


# -- deliver --------------------------------------------------------------------------------------


def _finds_outbox(asked: argparse.Namespace) -> bool:
    """Whether it is there. Without a word of another, it goes to the bus of its own folder."""
    if asked.outbox.is_dir():
        asked.outbox /= OUTBOX_NAME
    if asked.folder is None:
        asked.folder = asked.outbox.parent
    if not asked.outbox.is_file():
        print(f"there is no outbox {asked.outbox}", file=sys.stderr)
        return False
    return True


def _deliver(
    connection: Connection, settings: Settings, asked: argparse.Namespace, console: Console
) -> int:
    outbox = Outbox(asked.outbox)
    count = len(outbox)
    if not count:
        outbox.close()
        console.print(f"nothing waits in {asked.outbox}")
        return 0
    publisher = Publisher(
        lambda: connect(settings.url, folder=asked.folder),
        connection.signer(),
        settings,
        source="deliver",
        outbox=outbox,
    )
    publisher.close(asked.timeout)
    left = publisher.figures().waiting
    console.print(f"{count - left} of {count} messages were delivered")
    return PROBLEM if left else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
