"""What other processes do to a library of the tests."""

from pathlib import Path

from esper_lightning.leyline import Signer
from esper_lightning.urza import Library


def store(root: Path, key: bytes, name: str, contents: list[bytes]) -> None:
    """A version of a policy for each of ``contents``; the last has the tag ``newest``."""
    with Library(root, signer=Signer(key)) as library:
        for content in contents:
            artifact = library.put("policy", name, {"x": content}, tags=["newest"])
            assert artifact.read("x") == content


def collect(root: Path, key: bytes) -> None:
    """Remove what nothing refers to, without grace, again and again until it is told to stop."""
    with Library(root, signer=Signer(key)) as library:
        while not (root / "stop").exists():
            library.collect_garbage(grace_s=0)
