"""A small text in place of the real one."""

import random
from pathlib import Path

from esper_lightning.tolaria import TinyShakespeare

WORDS = ("the", "king", "and", "queen", "speak", "no", "more", "of", "love", "alas")


def written_text(num: int = 4000) -> str:
    """So many characters of words in random order; inside a word the next letter can be told."""
    chosen = random.Random(0)
    words = (chosen.choice(WORDS) + chosen.choice((" ", " ", ",\n")) for _ in range(num))
    return "".join(words)[:num]


def write_text(folder: Path, num: int = 4000, *, place: str = TinyShakespeare.source.places[0]):
    """Write :func:`written_text` as a data folder has it."""
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(written_text(num), newline="")
    return path


def tiny(folder: Path, **changes) -> TinyShakespeare:
    """The data module on a folder of :func:`write_text`."""
    options = {"context": 16, "windows_per_epoch": 48, "batch_size": 8, **changes}
    return TinyShakespeare(data_dir=folder, verify=False, **options)
