"""Episodes for Simic, as minibatches of boundaries: from what is there, or made anew each round."""

import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_number, check_whole
from esper_lightning.simic.episode import Episode
from esper_lightning.simic.experience.prioritised import (
    CORRECTION,
    EXPONENT,
    LEAST,
    draw,
    probabilities,
    weights,
)
from esper_lightning.simic.learning.round import Round
from esper_lightning.simic.learning.rows import Minibatch
from esper_lightning.simic.module import Simic
from esper_lightning.tamiyo.learned import StoredPolicy

log = logging.getLogger(__name__)


class EpisodeSource(Protocol):
    """Has episodes that were recorded before."""

    def episodes(self) -> Sequence[Episode]:
        """All that are to be learned from, and those to be held out."""


@runtime_checkable
class KeepsPriorities(EpisodeSource, Protocol):
    """A source that keeps what is expected to teach more."""

    def update_priorities(self, priorities: Mapping[str, float]) -> None:
        """Take what a round showed, by episode."""


class MakesEpisodes(Protocol):
    """Makes episodes with a policy."""

    def __call__(self, policy: StoredPolicy, number: int, /) -> Sequence[Episode]:
        """Those of a round, 0-based; the same policy and round give the same."""


class SimicData(LightningDataModule):
    """Minibatches of boundaries for :class:`Simic`.

    Exactly one of ``source`` and ``rollouts`` is given. Episodes of a source are there from the
    start; of those that older policies made too long ago none is learned from. Rollouts are made at
    the start of each round by the policy as it is then. The Trainer reloads data each epoch:
    ``reload_dataloaders_every_n_epochs=1``.

    Held out are whole tasks with their seeds, chosen by a hash, so that they are the same in every
    round. There is no test split: a policy is judged by runs that it decides in.

    Args:
        source: has recorded episodes.
        rollouts: makes episodes.
        draws: episodes of the source that a round is learned from, drawn by how far they came
            otherwise than the policy expects by then; None takes all of them, once.
        batch_size: boundaries a step.
        passes: over the boundaries of a round, in another order each.
        held_out: share of tasks with seeds that are not learned from.
        max_lag: versions that an episode's policy may be behind, or ahead; None for any.
        seed: of the order.

    Raises:
        InvalidArgument: an argument outside of what is allowed.
    """

    def __init__(
        self,
        *,
        source: EpisodeSource | None = None,
        rollouts: MakesEpisodes | None = None,
        draws: int | None = None,
        batch_size: int = 64,
        passes: int = 6,
        held_out: float = 0.1,
        max_lag: int | None = 8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if (source is None) == (rollouts is None):
            raise InvalidArgument(
                "episodes come either from datamodule.source or from datamodule.rollouts; give one"
            )
        for name, value in (("batch_size", batch_size), ("passes", passes)):
            check_whole(name, value, least=1)
        check_whole("max_lag", max_lag, least=0, or_none=True)
        check_whole("draws", draws, least=1, or_none=True)
        if draws is not None and source is None:
            raise InvalidArgument(
                f"draws={draws} are of recorded episodes: give datamodule.source, or leave it out"
            )
        check_whole("seed", seed, least=0)
        check_number("held_out", held_out)
        if not 0 <= held_out < 1:
            raise InvalidArgument(f"held_out must be at least 0 and below 1, got {held_out}")
        self._source, self._rollouts, self._draws = source, rollouts, draws
        self._batch_size, self._passes = batch_size, passes
        self._held_out, self._max_lag = held_out, max_lag
        self._seed = seed
        self._round: tuple[int, list[Episode], list[Episode]] | None = None

    def setup(self, stage: str) -> None:
        """Refuse what it cannot serve.

        Raises:
            InvalidArgument: another module, or a Trainer that does not reload data each epoch.
        """
        self._module()
        trainer: Any = self.trainer
        every = trainer.reload_dataloaders_every_n_epochs
        if self._held_out == 0:
            trainer.limit_val_batches = 0  # Lightning warns of a loader without batches
        if stage == "fit" and every != 1:
            raise InvalidArgument(
                f"advantages are told anew each round: "
                f"trainer.reload_dataloaders_every_n_epochs=1, got {every}"
            )

    def train_dataloader(self) -> DataLoader[Minibatch]:
        """The round that begins.

        Raises:
            InvalidArgument: there is nothing to learn from.
        """
        module = self._module()
        number = module.rounds if self._rollouts is not None else 0
        if self._round is None or self._round[0] != number:
            self._round = number, *self._split(module)
        found = module.prepare(self._round[1], "train")
        self._tell(self._round[1], found.priorities)
        seed = _mixed(self._seed, module.rounds)
        rows = torch.arange(len(found))
        if self._draws is not None:
            rows, found = drawn(found, self._draws, seed=seed)
        order = torch.Generator().manual_seed(seed)
        numbers = [
            rows[part]
            for _ in range(self._passes)
            for part in torch.split(torch.randperm(len(rows), generator=order), self._batch_size)
        ]
        return _loader(found, numbers)

    def val_dataloader(self) -> DataLoader[Minibatch] | list[DataLoader[Minibatch]]:
        """Episodes of the round that are not learned from; none without any.

        After a fit they are those of its last round.
        """
        module = self._module()
        if self._round is None:
            self._round = module.rounds, *self._split(module)
        if not self._round[2]:
            return []
        found = module.prepare(self._round[2], "val")
        self._tell(self._round[2], found.priorities)
        return _loader(found, torch.split(torch.arange(len(found)), self._batch_size))

    def _module(self) -> Simic:
        module = None if self.trainer is None else self.trainer.lightning_module
        if not isinstance(module, Simic):
            raise InvalidArgument(
                f"SimicData serves Simic, whose policy tells advantages, got "
                f"{type(module).__name__}: module._target_=esper_lightning.simic.module.Simic"
            )
        return module

    def _split(self, module: Simic) -> tuple[list[Episode], list[Episode]]:
        """Episodes to learn from and those held out, as they are now."""
        learned_from, held_out = split(self._found(module), self._held_out)
        if not learned_from:
            raise InvalidArgument(
                f"there are no episodes to learn from: {len(held_out)} are held out and the others "
                f"are of policies more than max_lag={self._max_lag} versions away from "
                f"{module.version}; begin with the policy that decided in them "
                f"(module.policy=null is that of tamiyo=learned), or raise datamodule.max_lag"
            )
        return learned_from, held_out

    def _found(self, module: Simic) -> list[Episode]:
        if self._rollouts is not None:
            found = list(self._rollouts(module.policy_for_rollouts(), module.rounds))
        else:
            assert self._source is not None
            found = list(self._source.episodes())
        kept = [each for each in found if self._is_recent(each, module.version)]
        if len(kept) < len(found):
            old = [each for each in found if not self._is_recent(each, module.version)]
            self._tell(old, [0.0] * len(old))
            log.info(
                "%d of %d episodes are left out: of policies more than %s versions away",
                len(found) - len(kept),
                len(found),
                self._max_lag,
            )
        return kept

    def _tell(self, episodes: Sequence[Episode], priorities: Sequence[float]) -> None:
        """Have a source that keeps priorities know them, for what it lets go first."""
        if isinstance(self._source, KeepsPriorities):
            ids = (each.id for each in episodes)
            self._source.update_priorities(dict(zip(ids, priorities, strict=True)))

    def _is_recent(self, episode: Episode, version: int) -> bool:
        return self._max_lag is None or all(
            abs(version - step.version) <= self._max_lag for step in episode.steps
        )


def split(episodes: Sequence[Episode], share: float) -> tuple[list[Episode], list[Episode]]:
    """Episodes to learn from, and those held out: whole tasks with their seeds, by a hash.

    Args:
        episodes: to be split.
        share: of tasks with seeds that are held out; at least one, and not all, if it is above 0
            and there are two.
    """
    owners = {(each.task, each.seed): _hashed(each) for each in episodes}
    num = round(share * len(owners))
    if share > 0 and len(owners) > 1:
        num = min(max(num, 1), len(owners) - 1)
    away = set(sorted(owners, key=lambda owner: owners[owner])[:num])
    learned_from = [each for each in episodes if (each.task, each.seed) not in away]
    return learned_from, [each for each in episodes if (each.task, each.seed) in away]


def drawn(found: Round, num: int, *, seed: int) -> tuple[Tensor, Round]:
    """Steps of episodes that are drawn by priority, with repetition.

    What is drawn more often counts as much less each time (proportional prioritisation, Schaul et
    al. 2016, arXiv:1511.05952, section 3).

    Args:
        found: a round of all episodes.
        num: how many are drawn.
        seed: of the draw.

    Returns:
        Which steps, ``(K,)``; and the round with the weights of these, which are 1 on average.
    """
    priorities = np.array(found.priorities, dtype=np.float64) + LEAST
    odds = probabilities(priorities, EXPONENT)
    places = draw(odds, num, seed=seed)
    counts = np.zeros(len(odds))
    np.add.at(counts, places, weights(odds, places, correction=CORRECTION))
    by_step = torch.from_numpy(counts).to(found.weights.dtype)[found.owners]
    rows = by_step.nonzero().flatten()
    return rows, dataclasses.replace(found, weights=by_step / by_step[rows].mean())


class _Parts(Sampler[Tensor]):
    """Parts of a round in a fixed order."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


class _Minibatches(torch.utils.data.Dataset[Minibatch]):
    def __init__(self, found: Round) -> None:
        self._found = found

    def __getitem__(self, numbers: Tensor) -> Minibatch:
        return self._found.minibatch(numbers)


def _loader(found: Round, parts: Sequence[Tensor]) -> DataLoader[Minibatch]:
    return DataLoader(_Minibatches(found), sampler=_Parts(parts), batch_size=None)


def _hashed(episode: Episode) -> str:
    return hashlib.sha256(f"{episode.task}\n{episode.seed}".encode()).hexdigest()


def _mixed(seed: int, number: int) -> int:
    """Another seed each round."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:8], "little") >> 1
