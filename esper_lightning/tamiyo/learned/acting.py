"""Acting: the decoder for one boundary, in NumPy.

It computes what :class:`~esper_lightning.tamiyo.learned.decoder.Decoder` does for many boundaries
in training. The arrays of one boundary are so small that calling an operator takes longer than its
arithmetic, and a call of NumPy takes a fraction of one of torch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from esper_lightning.tamiyo.budget import Price, Room
from esper_lightning.tamiyo.learned.actions import (
    GERMINATE,
    STOP,
    Action,
    left_after,
    part_of,
    room_of,
)
from esper_lightning.tamiyo.learned.attending import Attending, plain
from esper_lightning.tamiyo.learned.encoder import BLOCKED, TABLES
from esper_lightning.tamiyo.learned.network import PolicyNetwork
from esper_lightning.tamiyo.learned.standard import FAR, Standard
from esper_lightning.tamiyo.observation import KINDS, SHARES, Observation

Array = npt.NDArray[np.float32]

Pick = Callable[[Array], int]
"""Chooses an index by its log-probabilities ``(n,)``; that of what may not be chosen is at most
:data:`BLOCKED` and its probability 0."""

_ACTING = len(KINDS) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What the network chooses at one boundary.

    Attributes:
        actions: the last is NOOP.
        log_probabilities: of each.
        value: of the boundary.
    """

    actions: tuple[Action, ...]
    log_probabilities: tuple[float, ...]
    value: float


class _Linear:
    """``x W^T + b``."""

    def __init__(self, *modules: nn.Module) -> None:
        layers = [plain(module) for module in modules]
        self._standard: tuple[Array, Array] | None = None
        self.weight = np.concatenate([_array(layer.weight) for layer in layers]).T.copy()
        self.bias = np.concatenate(
            [
                np.zeros(layer.out_features, np.float32)
                if layer.bias is None
                else _array(layer.bias)
                for layer in layers
            ]
        )

    def behind(self, standard: Standard) -> "_Linear":
        """With the standardisation before it.

        It is not folded into the weights: where a scale is small beside its mean, what is left of
        float32 after that would not do.
        """
        self._standard = _array(standard.mean), _array(standard.scale)
        return self

    def __call__(self, x: Array) -> Array:
        if self._standard is not None:
            mean, scale = self._standard
            values, there = np.split(x, 2, axis=-1)
            values = np.clip((values - mean) / scale, -FAR, FAR) * there
            x = np.concatenate([values, there], axis=-1)
        out: Array = x @ self.weight + self.bias
        return out


@dataclass(slots=True, kw_only=True)
class _Turn:
    """Where a boundary stands before its next choice; shapes as in ``decoder.Turn`` without N."""

    pairs: Array
    fits: npt.NDArray[np.bool_]
    prices: npt.NDArray[np.float64]
    room: Room
    keys: Array
    candidates: Array
    slots: Array
    blueprints: Array
    context: Array
    legal: npt.NDArray[np.bool_]
    left: float
    admitted: npt.NDArray[np.bool_]

    def grant(self, share: float) -> None:
        """What is left of the room is less by a share; 0 for a start."""
        self.left = left_after(self.left, share, unlimited=self.room.is_unlimited)
        room = part_of(self.room, self.left)
        cheap = (self.prices[..., 0] <= room.parameters) & (self.prices[..., 1] <= room.flops)
        self.admitted = self.fits & cheap
        self.legal[GERMINATE - 1] &= self.admitted.any(axis=1)


class Actor:
    """Chooses at a boundary until it has done enough.

    Args:
        network: whose weights it takes, as they are now.

    Raises:
        InvalidArgument: there are adapters in it.
    """

    def __init__(self, network: PolicyNetwork) -> None:
        decoder = network.decoder
        self._attending = Attending(network.encoder)
        self._embed = {
            name: _Linear(network.encoder.embed[name]).behind(
                _standard(network.encoder.standard[name])
            )
            for name in TABLES
        }
        self._value_expand = _Linear(network.value_expand)
        self._value = _Linear(network.value)
        self._what = _Linear(decoder.kind, decoder.slot_query)
        self._slot_key = _Linear(decoder.slot_key)
        self._blueprint_query = _Linear(decoder.blueprint_query)
        self._blueprint_key = _Linear(decoder.blueprint_key)
        self._pair = _Linear(decoder.pair).behind(decoder.pair_standard)
        self._pair_context = _Linear(decoder.pair_context)
        self._pair_score = _Linear(decoder.pair_score)
        self._share_expand = _Linear(decoder.share_expand)
        self._share = _Linear(decoder.share)
        self._chosen_slot = _Linear(decoder.chosen_slot)
        self._chosen_blueprint = _Linear(decoder.chosen_blueprint)
        self._update = _Linear(decoder.update)
        self._chosen_kind = _array(decoder.chosen_kind.weight)
        self._chosen_share = _array(decoder.chosen_share.weight)
        self._scale = math.sqrt(network.architecture.width)

    def choose(self, observation: Observation, pick: Pick, *, only: int | None = None) -> Answered:
        """Choose at one boundary.

        Args:
            observation: of it.
            pick: chooses by log-probabilities.
            only: a kind of :data:`KINDS` to which all choices are limited, as long as any slot
                takes it; to tell what it would do if it did that.
        """
        actions: list[Action] = []
        told: list[float] = []
        # Weights that are too large are told by what they give, which is not finite.
        with np.errstate(all="ignore"):
            turn, value = self._begin(observation)
            while not actions or actions[-1].kind != STOP:
                action, log_probability = self._next(turn, pick, only)
                actions.append(action)
                told.append(log_probability)
                if action.kind != STOP:
                    self._take(turn, action)
        return Answered(actions=tuple(actions), log_probabilities=tuple(told), value=value)

    def _begin(self, observation: Observation) -> tuple[_Turn, float]:
        rows = {name: np.atleast_2d(_array(getattr(observation, name))) for name in TABLES}
        embedded = np.concatenate([self._embed[name](part) for name, part in rows.items()])
        num_slots, num_blueprints = observation.fits.shape
        with torch.inference_mode():
            x = torch.from_numpy(embedded)
            tokens = _array(self._attending(x, observation.relations, num_blueprints))
        context = tokens[0]
        behind = len(tokens) - num_blueprints
        slots, blueprints = tokens[behind - num_slots : behind], tokens[behind:]
        turn = _Turn(
            pairs=observation.pairs.numpy(),
            fits=observation.fits.numpy(),
            prices=observation.prices.numpy(),
            room=room_of(observation),
            keys=self._slot_key(slots) / self._scale,
            candidates=self._blueprint_key(blueprints) / self._scale,
            slots=self._chosen_slot(slots),
            blueprints=self._chosen_blueprint(blueprints),
            context=context,
            legal=observation.legal.numpy()[:, 1:].T.copy(),
            left=1.0,
            admitted=observation.fits.numpy(),
        )
        turn.grant(0.0)
        return turn, float(self._value(np.maximum(self._value_expand(context), 0))[0])

    def _next(self, turn: _Turn, pick: Pick, only: int | None) -> tuple[Action, float]:
        mixed = self._what(turn.context)
        queries = mixed[len(KINDS) :].reshape(_ACTING, -1)
        scores = np.where(turn.legal, queries @ turn.keys.T, BLOCKED)
        possible: npt.NDArray[np.bool_] = np.any(turn.legal, axis=1)
        kinds = mixed[: len(KINDS)]
        if turn.keys.size:
            kinds[1:] = np.where(possible, kinds[1:] + _log_sum_exp(scores), BLOCKED)
        else:
            kinds[1:] = BLOCKED
        odds = _log_softmax(kinds)
        kind = pick(odds) if only is None else only * int(possible[only - 1])
        total = float(odds[kind])
        if kind == STOP:
            return Action(STOP), total
        odds = _log_softmax(scores[kind - 1])
        slot = pick(odds)
        total += float(odds[slot])
        if kind != GERMINATE:
            return Action(kind, slot), total
        context = turn.context + turn.slots[slot]
        odds = self._which(turn, slot, context)
        blueprint = pick(odds)
        total += float(odds[blueprint])
        odds = self._how_much(turn, slot, blueprint, context)
        share = pick(odds)
        return Action(kind, slot, blueprint, share), total + float(odds[share])

    def _which(self, turn: _Turn, slot: int, context: Array) -> Array:
        hidden = np.maximum(self._pair(turn.pairs[slot]) + self._pair_context(context), 0)
        scores = turn.candidates @ self._blueprint_query(context) + self._pair_score(hidden)[:, 0]
        return _log_softmax(np.where(turn.admitted[slot], scores, BLOCKED))

    def _how_much(self, turn: _Turn, slot: int, blueprint: int, context: Array) -> Array:
        hidden = self._share_expand(context + turn.blueprints[blueprint])
        scores = self._share(np.maximum(hidden, 0))
        parameters, flops = turn.prices[slot, blueprint].tolist()
        price = Price(parameters=parameters, flops=flops)
        one = turn.room.is_unlimited
        for number, share in enumerate(SHARES):
            if (one and number) or not part_of(turn.room, turn.left * share).admits(price):
                scores[number] = BLOCKED
        return _log_softmax(scores)

    def _take(self, turn: _Turn, action: Action) -> None:
        chosen = self._chosen_kind[action.kind] + turn.slots[action.slot]
        if action.kind == GERMINATE:
            chosen = chosen + turn.blueprints[action.blueprint] + self._chosen_share[action.share]
        turn.context = turn.context + self._update(np.maximum(chosen, 0))
        turn.legal[:, action.slot] = False
        if action.kind == GERMINATE:
            turn.grant(SHARES[action.share])


def _array(tensor: Tensor) -> Array:
    found: Array = tensor.detach().numpy()
    return found


def _standard(module: nn.Module) -> Standard:
    assert isinstance(module, Standard)
    return module


def _log_sum_exp(x: Array) -> Array:
    most = x.max(axis=-1, keepdims=True)
    out: Array = np.log(np.exp(x - most).sum(axis=-1)) + most[..., 0]
    return out


def _log_softmax(x: Array) -> Array:
    shifted = x - x.max()
    out: Array = shifted - np.log(np.exp(shifted).sum())
    return out
