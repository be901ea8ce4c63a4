"""The network of a learned policy: one for any number of slots, layers and blueprints."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_whole
from esper_lightning.tamiyo.learned.actions import GERMINATE, STOP, Action
from esper_lightning.tamiyo.learned.batch import Batch, batch
from esper_lightning.tamiyo.learned.decoder import Decoder, Turn
from esper_lightning.tamiyo.learned.encoder import BLOCKED, Encoded, Encoder
from esper_lightning.tamiyo.learned.standard import Standard
from esper_lightning.tamiyo.observation import Observation

MAX_WIDTH, MAX_DEPTH = 256, 8
"""Of an architecture that a file may ask for: thirty times the parameters of the default one."""


class Architecture(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of a network.

    Attributes:
        width: features of a token, at most 256.
        depth: blocks of the encoder, at most 8.
        heads: of each attention; a divisor of ``width``.

    Raises:
        InvalidArgument: a size that is not allowed.
    """

    width: int = 64
    depth: int = 2
    heads: int = 4

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads"):
            check_whole(name, getattr(self, name), least=1)
        if self.width > MAX_WIDTH or self.depth > MAX_DEPTH or self.width % self.heads:
            raise InvalidArgument(
                f"an architecture has a width of at most {MAX_WIDTH}, a depth of at most "
                f"{MAX_DEPTH} and heads that divide the width, got {self}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What the network says of actions that were taken; N boundaries of at most T actions.

    Attributes:
        log_probabilities: ``(N, T)``, 0 where a boundary has no such action.
        entropies: ``(N, T)``: of the factors along what was chosen, in nats; likewise.
        there: ``(N, T)``: which actions there are.
        values: ``(N,)``.
    """

    log_probabilities: Tensor
    entropies: Tensor
    there: Tensor
    values: Tensor


class PolicyNetwork(nn.Module):
    """Encodes boundaries once, and tells of any choices how likely it was to make them.

    Args:
        architecture: its sizes.
    """

    def __init__(self, architecture: Architecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture or Architecture()
        width = self.architecture.width
        self.encoder = Encoder(
            width=width, depth=self.architecture.depth, heads=self.architecture.heads
        )
        self.decoder = Decoder(width=width)
        self.value_expand = nn.Linear(width, width)
        self.value = nn.Linear(width, 1)

    def encode(self, seen: Batch) -> tuple[Encoded, Tensor]:
        """What the decoder points at, and the values ``(N,)``."""
        tokens = self.encoder(seen)
        values = self.value(F.relu(self.value_expand(tokens.run)))[:, 0]
        return tokens, values

    def evaluate(
        self, observations: Sequence[Observation], actions: Sequence[Sequence[Action]]
    ) -> Evaluation:
        """Log-probabilities, entropies and values with gradients, of all boundaries at once.

        Args:
            observations: one a boundary.
            actions: those of each boundary, in their order, at least one.

        Raises:
            InvalidArgument: boundaries and actions do not belong together, or an action could not
                have been chosen.
        """
        if len(observations) != len(actions) or not all(actions):
            raise InvalidArgument(
                f"each boundary has at least one action, got {len(observations)} observations and "
                f"actions {[len(each) for each in actions]}"
            )
        seen = batch(observations)
        tokens, values = self.encode(seen)
        turn = self.decoder.begin(seen, tokens)
        length = max(len(each) for each in actions)
        padded = [[*each, *[Action(STOP)] * (length - len(each))] for each in actions]
        there = torch.arange(length) < torch.tensor([len(each) for each in actions])[:, None]
        told, entropies = [], []
        for step in range(length):
            chosen = [
                torch.tensor([getattr(each[step], name) for each in padded])
                for name in ("kind", "slot", "blueprint", "share")
            ]
            log_probability, entropy = self._factors(turn, *chosen)
            told.append(log_probability)
            entropies.append(entropy)
            self.decoder.take(turn, *chosen)
        log_probabilities = torch.where(there, torch.stack(told, dim=1), 0.0)
        impossible = (log_probabilities < BLOCKED / 2).nonzero().tolist()
        if impossible:
            row, step = impossible[0]
            raise InvalidArgument(
                f"{actions[row][step]} of boundary {row} could not have been chosen there"
            )
        return Evaluation(
            log_probabilities=log_probabilities,
            entropies=torch.where(there, torch.stack(entropies, dim=1), 0.0),
            there=there,
            values=values,
        )

    def fit(self, observations: Sequence[Observation]) -> None:
        """Take the scales of all features from observations; do so once, before training."""
        for name, standard in self.encoder.standard.items():
            assert isinstance(standard, Standard)
            rows: list[Tensor] = [getattr(each, name) for each in observations]
            size = 2 * len(standard.mean)
            standard.fit(torch.cat([each.reshape(-1, size) for each in rows]))
        self.decoder.pair_standard.fit(torch.cat([each.pairs[each.fits] for each in observations]))

    def _factors(
        self, turn: Turn, kind: Tensor, slot: Tensor, blueprint: Tensor, share: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``(N,)`` log-probability and entropy of one elementary choice each."""
        kinds, scores = self.decoder.what(turn)
        places = self.decoder.where(scores, kind)
        names, context = self.decoder.which(turn, slot)
        shares = self.decoder.how_much(turn, slot, blueprint, context)
        acts, plants = kind != STOP, kind == GERMINATE
        always = torch.ones_like(acts)
        log_probability = entropy = kinds.new_zeros(len(kind))
        for factor, chosen, counts in (
            (kinds, kind, always),
            (places, slot, acts),
            (names, blueprint, plants),
            (shares, share, plants),
        ):
            own = factor.gather(1, chosen[:, None])[:, 0]
            log_probability = log_probability + torch.where(counts, own, 0.0)
            spread = -(factor.exp() * factor).sum(dim=-1)
            entropy = entropy + torch.where(counts, spread, 0.0)
        return log_probability, entropy
