"""Commands on a policy: validate it, publish it, withdraw it.

``do`` of what was parsed carries a command out and returns its exit code: 0 it was done, and the
policy passed or was published; 1 it did not pass, and was not published. Errors are for the caller:
they mean that something cannot be used, which is 2.
"""

import argparse
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from esper_lightning.leyline import BusUnavailable, InvalidArgument, PolicyUpdate
from esper_lightning.oona import FIELD, Role, Settings, connect, envelope_of, sealed
from esper_lightning.simic.rollouts import RolloutTask
from esper_lightning.simic.validation.comparison import Resampling
from esper_lightning.simic.validation.gate import Gate
from esper_lightning.simic.validation.publication import (
    Announce,
    NotPublished,
    Standing,
    current,
    publish,
    withdraw,
)
from esper_lightning.simic.validation.rule import Rule
from esper_lightning.simic.validation.runs import UtilitiesOfRuns
from esper_lightning.simic.validation.verdict import Verdict
from esper_lightning.tamiyo.learned import StoredPolicy
from esper_lightning.urza import Library, default_root

log = logging.getLogger(__name__)

DONE, REFUSED = 0, 1
"""Exit codes."""

NO_BUS = "none"
"""The url with which nobody is told; a policy is then only stored."""

FIRST_SEED = 200_000
"""Of the gate; those of rollouts and of the contest of policies are others."""

_REFERENCE = re.compile(r"(.+)@([1-9][0-9]{0,17})", re.DOTALL)


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``validate``, ``publish`` and ``withdraw``."""
    _add_validate(commands)
    publishing = commands.add_parser("publish", help="store a policy that passed, and announce it")
    publishing.add_argument("policy", type=Path, help="file of the policy")
    publishing.add_argument(
        "--verdict", type=Path, default=Path("verdict.json"), help="on it (verdict.json)"
    )
    publishing.add_argument("--reason", default="", help="in words; otherwise what was shown")
    publishing.set_defaults(do=do_publish)
    withdrawing = commands.add_parser(
        "withdraw", help="mark a published policy as bad, and bring the last good one back"
    )
    withdrawing.add_argument("reference", help="which, such as learned@3")
    withdrawing.add_argument("--reason", required=True, help="in words")
    withdrawing.set_defaults(do=do_withdraw)
    for each in (publishing, withdrawing):
        each.add_argument(
            "--url",
            help=f"of the bus, as oona.url; otherwise REDIS_URL, or auto; {NO_BUS} tells nobody",
        )
        each.add_argument("--folder", type=Path, help="of a run whose embedded bus it is")
        each.add_argument("--library", type=Path, help="its folder; otherwise the user's own")


def _add_validate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    usual, how = Rule(), Resampling()
    validating = commands.add_parser(
        "validate",
        help="is a policy better, and does it keep its promises?",
        epilog="Exit codes: 0 it passed; 1 it did not; 2 something cannot be used.",
    )
    validating.add_argument("policy", type=Path, help="file of the policy")
    validating.add_argument(
        "--current", type=Path, help="file of the policy to beat; otherwise the library's current"
    )
    validating.add_argument("--tasks", type=int, default=12, help="that are held out (12)")
    validating.add_argument("--seeds", type=int, default=8, help="of each (8)")
    validating.add_argument(
        "--first-seed",
        type=int,
        default=FIRST_SEED,
        help=f"of the runs; judge another candidate on other seeds ({FIRST_SEED})",
    )
    validating.add_argument(
        "--margin", type=float, default=usual.margin, help=f"of utility ({usual.margin})"
    )
    validating.add_argument(
        "--confidence", type=float, default=how.confidence, help=f"({how.confidence})"
    )
    validating.add_argument("--jobs", type=int, default=2, help="runs at a time (2)")
    validating.add_argument("--train", type=Path, default=Path("train.py"), help="(train.py)")
    validating.add_argument(
        "--runs", type=Path, default=Path("outputs/validation"), help="folder of all runs"
    )
    validating.add_argument("--library", type=Path, help="its folder; otherwise the user's own")
    validating.add_argument("--out", type=Path, default=Path("verdict.json"), help="(verdict.json)")
    validating.add_argument(
        "--carry-out",
        default="esper_lightning.evidence.rollouts:Runs",
        help="class of what carries out runs (%(default)s)",
    )
    validating.add_argument(
        "--task",
        default="esper_lightning.evidence.rollouts:held_out_task",
        help="function that tells the task of a number (%(default)s)",
    )
    validating.set_defaults(do=do_validate)


def do_validate(asked: argparse.Namespace) -> int:
    """Judge a policy, and write the verdict.

    Raises:
        InvalidArgument: a file is not there, or an argument is not allowed.
        DecodeError: it is no policy of this release.
        LibraryError: the library cannot be read.
    """
    candidate = StoredPolicy.load(asked.policy)
    beside = _beside(asked, candidate.card.name)
    rule = Rule(margin=asked.margin, resampling=Resampling(confidence=asked.confidence))
    carry_out = _named(asked.carry_out)(
        folder=asked.runs / "runs", train=asked.train, jobs=asked.jobs
    )
    task = _named(asked.task)
    # Numbers may name the same task twice.
    tasks: dict[str, RolloutTask] = {}
    for number in range(10 * asked.tasks):
        found: RolloutTask = task(number)
        if len(tasks) < asked.tasks:
            tasks.setdefault(found.name, found)
    gate = Gate(
        utilities=UtilitiesOfRuns(carry_out=carry_out, folder=asked.runs / "policies"),
        tasks=list(tasks.values()),
        seeds=range(asked.first_seed, asked.first_seed + asked.seeds),
        rule=rule,
    )
    verdict = gate(candidate, beside)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_bytes(verdict.to_bytes())
    log.info("%s %s", verdict.candidate, "passed:" if verdict.passed else "did not pass:")
    for line in dict.fromkeys([*verdict.reasons, *map(str, verdict.differences)]):
        log.info("  %s", line)
    log.info("the verdict is in %s", asked.out)
    return DONE if verdict.passed else REFUSED


def do_publish(asked: argparse.Namespace) -> int:
    """Publish a policy with its verdict.

    Raises:
        InvalidArgument: a file is not there.
        DecodeError: policy or verdict is none of this release.
        LibraryError: it cannot be stored.
        BusUnavailable: it is stored and nobody was told; do it again.
    """
    stored = StoredPolicy.load(asked.policy)
    if not asked.verdict.is_file():
        raise InvalidArgument(f"there is no verdict {asked.verdict}; `validate` writes one")
    verdict = Verdict.from_bytes(asked.verdict.read_bytes(), what=str(asked.verdict))
    with _bus(asked) as announce, Library(asked.library or default_root()) as library:
        try:
            update = publish(
                stored, verdict, library=library, announce=announce, reason=asked.reason
            )
        except NotPublished as error:
            log.info("%s", error)
            return REFUSED
    log.info("%s is version %d of %s", update.reference, update.version, update.name)
    return DONE


def do_withdraw(asked: argparse.Namespace) -> int:
    """Withdraw a published policy.

    Raises:
        InvalidArgument: there is no such policy.
        LibraryError: the library cannot be read or written.
        BusUnavailable: it is withdrawn and nobody was told; do it again.
    """
    match = _REFERENCE.fullmatch(asked.reference)
    if match is None:
        raise InvalidArgument(f"a reference is such as learned@3, got {asked.reference!r}")
    with _bus(asked) as announce, Library(asked.library or default_root()) as library:
        update = withdraw(
            match[1], int(match[2]), reason=asked.reason, library=library, announce=announce
        )
    if update is not None:
        log.info("%s, version %d, is in its place", update.reference, update.version)
    return DONE


def _beside(asked: argparse.Namespace, name: str) -> StoredPolicy:
    if asked.current is not None:
        return StoredPolicy.load(asked.current)
    with Library(asked.library or default_root()) as library:
        found: Standing | None = current(library, name)
    if found is None:
        raise InvalidArgument(
            f"nothing is current of the policy {name!r}; name what to beat with --current, or give "
            "the policy the name of the one that it should replace"
        )
    log.info("beside %s", found)
    return found.stored


def _named(path: str) -> Callable[..., Any]:
    try:
        found = resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidArgument(f"{path!r} cannot be found: {error}; name package:object") from error
    if not callable(found):
        raise InvalidArgument(f"{path!r} cannot be called; name a class or a function")
    made: Callable[..., Any] = found
    return made


@contextmanager
def _bus(asked: argparse.Namespace) -> Iterator[Announce]:
    """What tells runs of updates, at once; opened before anything is stored."""
    if asked.url == NO_BUS:
        yield lambda _: None
        return
    settings = Settings.from_environment(asked.url)
    with connect(settings.url, folder=asked.folder) as connection:
        if settings.url == "auto" and connection.kind == "memory":
            raise BusUnavailable(
                "a bus inside this process would be heard by nobody else; name one with --url, or "
                f"store the policy only with --url {NO_BUS}"
            )
        signer = connection.signer()
        connection.read(settings.streams[Role.POLICY], after="0", count=1)  # is it there?

        def announce(update: PolicyUpdate) -> None:
            data = sealed(envelope_of(update, source="simic"), signer)
            connection.add(settings.streams[Role.POLICY], {FIELD: data})

        yield announce
