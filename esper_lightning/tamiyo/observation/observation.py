"""An observation: what a policy that computes sees of one boundary."""

from dataclasses import dataclass

from torch import Tensor

from esper_lightning.leyline import CommandKind

VERSION = 1
"""Of the features, their order and their scales. A policy decides on the version that it learned
from; raise it with every change of any of them."""

KINDS = (
    CommandKind.NOOP,
    CommandKind.GERMINATE,
    CommandKind.FOSSILIZE,
    CommandKind.CULL,
    CommandKind.PRUNE,
    CommandKind.PAUSE,
    CommandKind.RESUME,
    CommandKind.ADVANCE,
)
"""What may be done, NOOP first. EMERGENCY and ROLLBACK are the governor's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One boundary in numbers.

    Each row holds the values of its features, 0 for what is missing, and behind them as many bits
    that say which are there. S slots, L other layers, B blueprints.

    Attributes:
        run: ``(F,)``.
        layers: ``(L, F)``, of layers that are no slots.
        slots: ``(S, F)``.
        blueprints: ``(B, F)``, of those that fit any slot.
        pairs: ``(S, B, F)``, of a blueprint in a slot.
        relations: ``(L + S, L + S)`` integers: how the layer or slot of a column stands to that of
            a row in the host's dataflow; layers first.
        legal: ``(S, K)``: which of :data:`KINDS` may be asked of a slot. NOOP never is: it names no
            slot.
        fits: ``(S, B)``: whether a blueprint may be planted, without a look at its price.
        prices: ``(S, B, 2)`` float64: parameters and training FLOPs of its smallest size.
        room: ``(2,)`` float64: what may be added of both, infinite without a limit, negative where
            it is not known; then nothing fits.
        slot_names: module paths.
        blueprint_names: as the catalogue calls them.
        version: of the features.
    """

    run: Tensor
    layers: Tensor
    slots: Tensor
    blueprints: Tensor
    pairs: Tensor
    relations: Tensor
    legal: Tensor
    fits: Tensor
    prices: Tensor
    room: Tensor
    slot_names: tuple[str, ...]
    blueprint_names: tuple[str, ...]
    version: int = VERSION
