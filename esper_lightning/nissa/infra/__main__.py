"""Write the files of ``infra/`` anew: ``python -m esper_lightning.nissa.infra [--out FOLDER]``.

With ``--check`` nothing is written; it ends with 1 if a file is not what the code makes.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from esper_lightning.nissa.infra import infra_files


def main(arguments: Sequence[str]) -> int:
    """Do what was asked; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m esper_lightning.nissa.infra",
        description="Write the settings of Prometheus, Alertmanager and Grafana.",
    )
    parser.add_argument("--out", type=Path, default=Path("infra"), metavar="FOLDER")
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    asked = parser.parse_args(arguments)
    stale = []
    for name, text in infra_files().items():
        path = asked.out / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(str(path))
        if not asked.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for each in stale:
        print(f"{each} {'is not what the code makes' if asked.check else 'written'}")
    return 1 if stale and asked.check else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
