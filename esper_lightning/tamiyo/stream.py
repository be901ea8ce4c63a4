"""A random stream in plain data."""

import random

import msgspec

from esper_lightning.leyline import InvalidArgument


class Stream(msgspec.Struct, forbid_unknown_fields=True):
    """The state of a ``random.Random``."""

    version: int
    words: list[int]
    gauss: float | None

    @classmethod
    def of(cls, source: random.Random) -> "Stream":
        """Where it stands."""
        version, words, gauss = source.getstate()
        return cls(version=version, words=list(words), gauss=gauss)

    def resumed(self, *, policy: str) -> random.Random:
        """One that goes on from there.

        Raises:
            InvalidArgument: it is no state of one.
        """
        source = random.Random(0)
        try:
            source.setstate((self.version, tuple(self.words), self.gauss))
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidArgument(
                f"this is not a saved state of the policy {policy!r}: {error}"
            ) from error
        return source
