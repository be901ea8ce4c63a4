"""Where new policies are heard of."""

from abc import ABC, abstractmethod

from esper_lightning.leyline import PolicyUpdate


class Source(ABC):
    """Says which policies were published. It judges where a message comes from, not what it says.

    What comes of one in a run is for :class:`~esper_lightning.tamiyo.reload.Reloading` to say.
    """

    @abstractmethod
    def poll(self) -> list[PolicyUpdate]:
        """What was published since it was last asked, oldest first.

        It does not wait for anything to come, and a message that is bad is no error.
        """

    def refusals(self) -> list[str]:
        """Why messages were not taken for updates, in words, since it was last asked.

        However many there were, the list is short.
        """
        return []

    def distrust(self) -> str:
        """Why what comes from there must not be trusted now; empty where it may be."""
        return ""

    def position(self) -> str:
        """How far it has read, for a run that is resumed; empty for the beginning."""
        return ""

    def continue_from(self, position: str) -> None:  # noqa: B027  # not all can
        """Read on from a :meth:`position`."""

    def close(self) -> None:  # noqa: B027  # most hold nothing
        """Let go of what it holds outside of this process; it may be asked again."""
