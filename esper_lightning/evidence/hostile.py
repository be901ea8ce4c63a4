"""Boundaries that no run should have: those that a policy is validated on."""

from esper_lightning.simic.validation.hostile_states import boundaries, violations

__all__ = ["boundaries", "violations"]
