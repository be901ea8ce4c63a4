"""A controller in a process of its own: ``python -m esper_lightning.tamiyo serve``.

It answers the runs that ask it over the bus (``tamiyo=remote``) until it is interrupted. It ends
with 0, or with 2 if the bus or the policy cannot be used.
"""

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from esper_lightning.conf.policies import policy_maker
from esper_lightning.leyline import EsperError
from esper_lightning.oona import Admission, Consumer, Role, Settings, alarm, connect
from esper_lightning.tamiyo.policy import Policy
from esper_lightning.tamiyo.service import GROUP, Answers

UNUSABLE = 2


def main(arguments: Sequence[str]) -> int:
    """Do what was asked; the exit code."""
    asked = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        serve(policy_maker(asked.overrides), stop, url=asked.url, folder=asked.folder)
    except EsperError as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    return 0


def serve(
    make_policy: Callable[[], Policy],
    stop: threading.Event,
    *,
    url: str | None = None,
    folder: Path | None = None,
) -> None:
    """Answer until ``stop`` is set.

    Raises:
        BusUnavailable: there is no bus to be had.
        KeyRequired: it is shared, and there is no key to sign with.
    """
    settings = Settings.from_environment(url)
    with connect(settings.url, folder=folder) as connection:
        signer = connection.signer()
        consumer = Consumer(
            connection.client,
            settings,
            Admission(signer, on_forged=alarm(connection, settings, signer, source="tamiyo")),
            group=GROUP,
            handlers={"question": Answers(make_policy, settings, signer)},
            roles=(Role.NORMAL,),
        )
        logging.info("answering with %s on %s", make_policy().name, connection.address)
        consumer.run(stop)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m esper_lightning.tamiyo",
        description="A controller in a process of its own.",
        epilog="Exit codes: 0 it was interrupted; 2 the bus or the policy cannot be used.",
    )
    commands = parser.add_subparsers(required=True, metavar="{serve}")
    serving = commands.add_parser("serve", help="answer the runs that ask over the bus")
    serving.add_argument(
        "overrides",
        nargs="*",
        metavar="OVERRIDE",
        help="which policy, as for train.py: tamiyo=periodic tamiyo.policy.period=4 (heuristic)",
    )
    serving.add_argument("--url", help="of the bus, as oona.url; otherwise REDIS_URL, or auto")
    serving.add_argument("--folder", type=Path, help="of a run whose embedded bus it is")
    return parser


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
