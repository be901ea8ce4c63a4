"""Looking at everything that a library holds."""

from collections.abc import Callable, Iterator

import msgspec

from esper_lightning.urza import rows
from esper_lightning.urza.content import Content
from esper_lightning.urza.database import Database
from esper_lightning.urza.errors import BadSignature, Damaged, Removed
from esper_lightning.urza.manifest import Manifest, Part, Reference
from esper_lightning.urza.reading import check

_PAGE = 512


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        versions: that were looked at.
        files: that were read; one that several versions share is read once.
        size: bytes of these files.
        damaged: what can no longer be read, with the reason; that found earlier included.
        unsigned: what is not signed with the key of this installation, with the reason.
        database: what SQLite's own check says; empty if nothing.
    """

    versions: int
    files: int
    size: int
    damaged: dict[Reference, str]
    unsigned: dict[Reference, str]
    database: tuple[str, ...]

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.damaged or self.unsigned or self.database)


def verify(
    database: Database,
    content: Content,
    unsealed: Callable[[rows.Found], Manifest],
    progress: Callable[[int, int], None] | None,
) -> Verification:
    """See :meth:`~esper_lightning.urza.library.Library.verify`."""
    whole: dict[Part, None] = {}
    damaged: dict[Reference, str] = {}
    unsigned: dict[Reference, str] = {}
    done = 0
    with database.reading() as connection:
        said = connection.exec_driver_sql("PRAGMA quick_check").scalars().all()
        total = rows.count(connection)
    for found in _all(database):
        reference = found.reference
        try:
            manifest = unsealed(found)
            for name in manifest.parts:
                if manifest.parts[name] not in whole:
                    check(database, content, manifest, name)
                    whole[manifest.parts[name]] = None
        except BadSignature as error:
            unsigned[reference] = str(error)
        except Damaged as error:
            damaged[reference] = str(error)
        except Removed:
            continue
        done += 1
        if progress is not None:
            progress(done, max(done, total))
    return Verification(
        versions=done,
        files=len(whole),
        size=sum(part.size for part in whole),
        damaged=damaged,
        unsigned=unsigned,
        database=tuple(line for line in said if line != "ok"),
    )


def _all(database: Database) -> Iterator[rows.Found]:
    """Every version, page by page: nobody is kept waiting for the end of it."""
    last = 0
    while True:
        with database.reading() as connection:
            found = rows.page(connection, after=last, length=_PAGE)
        if not found:
            return
        last = found[-1][0]
        yield from (row for _, row in found)
