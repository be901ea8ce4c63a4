"""The lifecycle of a slot: eleven stages, one table of legal moves, one table of legal commands."""

from collections.abc import Mapping
from enum import Enum, IntEnum


class SeedStage(IntEnum):
    """Where a slot stands in its lifecycle. The numbers are part of every saved file: keep them.

    =============  ==============================================================================
    stage          what the slot computes
    =============  ==============================================================================
    UNKNOWN        the host module alone; no forward pass has been seen yet, so shapes are missing
    DORMANT        the host module with its fossils
    GERMINATED     the same; a seed is there and waits for G0
    TRAINING       the same; the seed trains behind it on what it would have changed
    BLENDING       ``h + alpha * f``, alpha rising from 0 to 1
    SHADOWING      ``h + f``, still detached from the host, settling and watched
    PROBATIONARY   ``h + f``, coupled both ways, on trial
    FOSSILIZED     ``h + f``, part of the host
    CULLED         ``h + alpha * f``, alpha falling to 0, then ``h``; of a seed or a pruned fossil
    EMBARGOED      ``h``; the slot rests
    RESETTING      ``h``; the slot is checked for leftovers
    TERMINATED     ``h``; the slot will not grow again unless a fossil is pruned
    =============  ==============================================================================
    """

    UNKNOWN = 0
    DORMANT = 1
    GERMINATED = 2
    TRAINING = 3
    BLENDING = 4
    SHADOWING = 5
    PROBATIONARY = 6
    FOSSILIZED = 7
    CULLED = 8
    EMBARGOED = 9
    RESETTING = 10
    TERMINATED = 11


class CommandKind(str, Enum):
    """What a controller may ask for."""

    GERMINATE = "germinate"
    ADVANCE = "advance"
    FOSSILIZE = "fossilize"
    CULL = "cull"
    PRUNE = "prune"
    PAUSE = "pause"
    RESUME = "resume"
    ROLLBACK = "rollback"
    OPTIMIZER = "optimizer"
    BREAKER = "breaker"
    EMERGENCY = "emergency"
    NOOP = "noop"


_S = SeedStage

TRANSITIONS: Mapping[SeedStage, frozenset[SeedStage]] = {
    _S.UNKNOWN: frozenset({_S.DORMANT}),
    _S.DORMANT: frozenset({_S.GERMINATED, _S.CULLED, _S.TERMINATED}),
    _S.GERMINATED: frozenset({_S.TRAINING, _S.PROBATIONARY, _S.CULLED}),
    _S.TRAINING: frozenset({_S.BLENDING, _S.CULLED}),
    _S.BLENDING: frozenset({_S.SHADOWING, _S.CULLED}),
    _S.SHADOWING: frozenset({_S.PROBATIONARY, _S.CULLED}),
    _S.PROBATIONARY: frozenset({_S.FOSSILIZED, _S.CULLED}),
    _S.FOSSILIZED: frozenset({_S.DORMANT, _S.CULLED, _S.TERMINATED}),
    _S.CULLED: frozenset({_S.EMBARGOED}),
    _S.EMBARGOED: frozenset({_S.RESETTING}),
    _S.RESETTING: frozenset({_S.DORMANT, _S.TERMINATED}),
    _S.TERMINATED: frozenset({_S.CULLED}),
}
"""Every legal move from one stage to another. GERMINATED -> PROBATIONARY is direct insertion;
FOSSILIZED, DORMANT and TERMINATED -> CULLED are the pruning of a fossil."""

LIVE_STAGES = frozenset({_S.GERMINATED, _S.TRAINING, _S.BLENDING, _S.SHADOWING, _S.PROBATIONARY})
"""Stages in which a seed is alive: it can be culled, and it has a maximum age."""

_AT_REST = frozenset({_S.FOSSILIZED, _S.DORMANT, _S.TERMINATED})

LEGAL_COMMANDS: Mapping[CommandKind, frozenset[SeedStage]] = {
    CommandKind.GERMINATE: frozenset({_S.DORMANT}),
    CommandKind.ADVANCE: frozenset({_S.GERMINATED, _S.TRAINING, _S.BLENDING, _S.SHADOWING}),
    CommandKind.FOSSILIZE: frozenset({_S.PROBATIONARY}),
    CommandKind.CULL: LIVE_STAGES,
    CommandKind.PRUNE: _AT_REST,
    CommandKind.EMERGENCY: LIVE_STAGES | _AT_REST | {_S.CULLED},
    CommandKind.PAUSE: LIVE_STAGES - {_S.GERMINATED},
    CommandKind.RESUME: LIVE_STAGES - {_S.GERMINATED},
    CommandKind.NOOP: frozenset(SeedStage),
}
"""The stages in which each slot command may be given. A kind that is not here (ROLLBACK, OPTIMIZER,
BREAKER) does not address a slot. EMERGENCY is a cull, or a pruning, without a ramp."""


def legal_commands(
    stage: SeedStage, *, paused: bool = False, has_fossils: bool = False
) -> tuple[CommandKind, ...]:
    """Slot commands that may be given in ``stage``, in the order of :class:`CommandKind`.

    A paused seed takes only RESUME, CULL, EMERGENCY and NOOP; RESUME needs a paused seed. PRUNE
    needs a fossil, and so does EMERGENCY without a seed.

    >>> [k.value for k in legal_commands(SeedStage.DORMANT)]
    ['germinate', 'noop']
    >>> [k.value for k in legal_commands(SeedStage.DORMANT, has_fossils=True)]
    ['germinate', 'prune', 'emergency', 'noop']
    >>> [k.value for k in legal_commands(SeedStage.TRAINING, paused=True)]
    ['cull', 'resume', 'emergency', 'noop']
    """
    kinds = [kind for kind in CommandKind if stage in LEGAL_COMMANDS.get(kind, frozenset())]
    if stage in _AT_REST and not has_fossils:
        kinds = [k for k in kinds if k not in (CommandKind.PRUNE, CommandKind.EMERGENCY)]
    if paused:
        stays = (CommandKind.RESUME, CommandKind.CULL, CommandKind.EMERGENCY, CommandKind.NOOP)
        return tuple(kind for kind in kinds if kind in stays)
    return tuple(kind for kind in kinds if kind is not CommandKind.RESUME)


def mermaid() -> str:
    """The transitions table as a Mermaid state diagram (the one in the docs is this text)."""
    lines = ["stateDiagram-v2", "    [*] --> UNKNOWN"]
    for before, afters in TRANSITIONS.items():
        lines += [f"    {before.name} --> {after.name}" for after in sorted(afters)]
    lines.append("    TERMINATED --> [*]")
    return "\n".join(lines)
