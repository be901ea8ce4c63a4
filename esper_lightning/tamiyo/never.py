"""The policy that never acts: the host alone."""

from esper_lightning.leyline import SystemState
from esper_lightning.tamiyo.policy import Choice, Policy, wait


class Never(Policy):
    """Grows nothing. Every claim that growth helped is measured against this one."""

    name = "never"

    def decide(self, state: SystemState) -> list[Choice]:  # noqa: ARG002 - it looks at nothing
        """Wait."""
        return wait("this policy never acts")
