"""Which run is whose twin: runs of one task and seed begin alike, to the last bit."""

import hashlib
from collections.abc import Sequence

from esper_lightning.leyline import SystemState, encode
from esper_lightning.simic.recording import Boundary
from esper_lightning.tamiyo.recorded import RecordedBoundary


def beginning(state: SystemState) -> str:
    """SHA-256 of a run's first boundary, at which nothing has grown yet.

    It tells initialisation, data and their order by what they led to, so that two runs share it
    only if they have one task and one seed. On another kind of machine a run begins otherwise.

    Args:
        state: at the end of the first epoch.
    """
    told = (
        state.max_epochs,
        state.global_step,
        state.steps_per_epoch,
        state.objective,
        state.metrics,
        state.host_parameters,
        state.host_flops,
        state.learning_rate,
        state.layers,
    )
    return hashlib.sha256(encode(told)).hexdigest()


def seed_of(told: str) -> int:
    """A number that runs of one beginning share, where their own seed is not told: 32 bits."""
    return int(told[:8], 16)


def is_alone(states: Sequence[SystemState]) -> bool:
    """Whether nothing was there beside the host at any boundary: then it is anybody's twin."""
    return bool(states) and not any(
        state.num_parameters != state.host_parameters
        or any(slot.blueprint or slot.fossils or slot.num_culls for slot in state.slots)
        for state in states
    )


def begins(states: Sequence[SystemState]) -> bool:
    """Whether the first epoch is there and every one after it, up to the last that is."""
    epochs = [state.epoch for state in states]
    # A run that ends early has a second boundary in its last epoch.
    return bool(epochs) and sorted(set(epochs)) == list(range(max(epochs) + 1))


def teaches(boundaries: Sequence[Boundary] | Sequence[RecordedBoundary]) -> bool:
    """Whether a policy decided that tells its version and its probabilities."""
    return any(
        each.policy_version is not None and each.log_probability is not None
        for boundary in boundaries
        for each in boundary.decisions
    )
