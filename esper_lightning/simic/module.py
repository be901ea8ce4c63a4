"""Simic: a policy learns from episodes by PPO, on adapters."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from esper_lightning.leyline import InvalidArgument, NonFiniteTraining, UnsupportedTraining
from esper_lightning.leyline.arguments import check_number
from esper_lightning.simic.adapters import Adapted
from esper_lightning.simic.episode import Episode
from esper_lightning.simic.learning.advantages import check_share
from esper_lightning.simic.learning.evaluation import evaluate
from esper_lightning.simic.learning.ppo import PPOConfig, Terms, explained_variance, kl, ppo
from esper_lightning.simic.learning.round import Round, begin, see, tell
from esper_lightning.simic.learning.rows import Minibatch
from esper_lightning.simic.softening import softened
from esper_lightning.tamiyo.learned import StoredPolicy

log = logging.getLogger(__name__)

_ADAPTERS = "adapted."
_STATE = "simic"


class Simic(LightningModule):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347) of a learned policy.

    A Lightning epoch is a round: episodes come in, their advantages are told once by the policy as
    it is then (:meth:`prepare`), and minibatches of their boundaries are learned from. The value is
    the utility that is still to come. Only adapters are trained, and only they are in a checkpoint;
    the base is the policy that was given, which must be given again to go on. A policy after n
    rounds has the version of the base plus n. It computes on a CPU, in one process.

    Args:
        policy: a file to begin with, or one that is read; "cloned" is the heuristic's clone, None
            the policy that comes with the package.
        temperature: by which the policy is softened first, see :func:`softened`; above 1 it tries
            more.
        ppo: limits and weights of the loss.
        rank: of the adapters.
        alpha: they are scaled by ``alpha / rank``.
        dropout: before each adapter, in training.
        discount: gamma; a run is an episode with an end, so that 1 is no risk.
        decay: lambda of V-trace and GAE.
        rate: learning rate of Adam.
        kl_stop: a round ends when the policy is as far from its start, in nats a boundary, by one
            minibatch; None for never. Lightning before 2.6 does not validate after such a round.

    Raises:
        InvalidArgument: an argument outside of what is allowed, or no such file.
        DecodeError: the file is no policy.
    """

    def __init__(
        self,
        *,
        policy: StoredPolicy | Path | str | None = "cloned",
        temperature: float = 1.0,
        ppo: PPOConfig | None = None,
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        discount: float = 1.0,
        decay: float = 0.95,
        rate: float = 1e-3,
        kl_stop: float | None = 0.25,
    ) -> None:
        super().__init__()
        check_share("discount", discount)
        check_share("decay", decay)
        for name, value, or_none in (("rate", rate, False), ("kl_stop", kl_stop, True)):
            check_number(name, value, or_none=or_none)
            if value is not None and not 0 < value < float("inf"):
                raise InvalidArgument(f"{name} must be above 0, got {value}")
        given = policy if isinstance(policy, StoredPolicy) else StoredPolicy.load(policy)
        base = softened(given, temperature)
        self.adapted = Adapted(base, rank=rank, alpha=alpha, dropout=dropout)
        self.ppo = ppo or PPOConfig()
        self.discount, self.decay = discount, decay
        self.rate, self.kl_stop = rate, kl_stop
        self.rounds = 0
        self._is_far = False
        self._of_round: dict[str, dict[str, float]] = {}
        self._values: dict[str, list[tuple[Tensor, Tensor]]] = {"train": [], "val": []}

    @property
    def version(self) -> int:
        """Of the policy as it is now."""
        return self.adapted.base.version + self.rounds

    def policy_for_rollouts(self) -> StoredPolicy:
        """The policy as it is now, in plain layers."""
        return self.merged()

    def merged(self, *, name: str | None = None, version: int | None = None) -> StoredPolicy:
        """The policy as it is now, in plain layers, to be stored.

        Args:
            name: None keeps that of the base.
            version: None takes :attr:`version`.

        Raises:
            InvalidArgument: weights are not finite, or the base is no longer what it was.
        """
        provenance = {"by": "PPO", "rounds": self.rounds}
        return self.adapted.merged(
            name=self.adapted.base.name if name is None else name,
            version=self.version if version is None else version,
            provenance=provenance,
        )

    def prepare(self, episodes: Sequence[Episode], split: str = "train") -> Round:
        """What a round learns from, told by the policy as it is now.

        Args:
            episodes: of the round.
            split: under which they are logged.

        Raises:
            InvalidArgument: there are no episodes, or one holds what cannot be.
        """
        seen = see(episodes)
        was_training = self.training
        self.eval()
        own = tell(self.adapted.network, seen.rows)
        with self.adapted.base_alone() as network:
            base = tell(network, seen.rows)
        self.train(was_training)
        returns = [sum(each.rewards) for each in episodes]
        self._of_round[split] = {
            "episodes": float(len(episodes)),
            "steps": float(sum(seen.lengths)),
            "return": sum(returns) / len(returns),
        }
        return begin(episodes, seen, own, base, discount=self.discount, decay=self.decay)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on what is trained; fused, as the adapters are many and small."""
        trained = [each for each in self.parameters() if each.requires_grad]
        return torch.optim.Adam(trained, lr=self.rate, eps=1e-5, fused=True)

    def setup(self, stage: str) -> None:
        """Refuse what it cannot do.

        Raises:
            UnsupportedTraining: several processes.
        """
        if self.trainer.world_size > 1:
            raise UnsupportedTraining(
                f"a policy is trained in one process, this Trainer has {self.trainer.world_size}: "
                f"trainer.devices=1; rollouts have workers of their own"
            )

    def on_fit_start(self) -> None:
        """Refuse a device that its networks do not compute on.

        Raises:
            UnsupportedTraining: it is no CPU.
        """
        if self.device.type != "cpu":
            raise UnsupportedTraining(
                f"the network of a policy computes on a CPU, got {self.device}: "
                f"trainer.accelerator=cpu"
            )

    def on_train_epoch_start(self) -> None:
        """A round begins."""
        self._is_far = False

    def on_train_batch_start(self, batch: Minibatch, batch_idx: int) -> int | None:
        """End the round when the policy has gone far enough; -1 tells Lightning so."""
        return -1 if self._is_far else None

    def training_step(self, batch: Minibatch, batch_idx: int) -> Tensor:
        """The loss of a minibatch.

        Raises:
            NonFiniteTraining: it is not finite; no step was made.
        """
        terms, apart = self._terms(batch, "train")
        if not terms.loss.isfinite():
            raise NonFiniteTraining(
                f"the loss of round {self.rounds} is {terms.loss.item()} at step {batch_idx}; "
                f"lower module.rate, or leave out the episodes that it came with"
            )
        self._is_far = self.kl_stop is not None and apart.item() > self.kl_stop
        self._note("train", batch, terms, kl=apart, stale=kl(batch.logged, batch.start))
        return terms.loss

    def validation_step(self, batch: Minibatch, batch_idx: int) -> None:
        """The same of episodes that are not learned from."""
        terms, _ = self._terms(batch, "val")
        self._note("val", batch, terms, stale=kl(batch.logged, batch.start))

    def on_train_epoch_end(self) -> None:
        """A round is over."""
        self.rounds += 1
        self.log("simic/version", float(self.version))
        self._note_round("train")

    def on_validation_epoch_end(self) -> None:
        """So are the episodes that are not learned from."""
        self._note_round("val")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was learned, and which base it belongs to."""
        learned = {_ADAPTERS + key: value for key, value in self.adapted.learned().items()}
        checkpoint["state_dict"] = learned
        checkpoint[_STATE] = {"rounds": self.rounds, "base_digest": self.adapted.base_digest}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            InvalidArgument: it belongs to another base, or is none of this module.
        """
        state = checkpoint.get(_STATE)
        if state is None:
            raise InvalidArgument("this is no checkpoint of Simic: it does not tell of a base")
        if state["base_digest"] != self.adapted.base_digest:
            raise InvalidArgument(
                f"the checkpoint belongs to a base with the digest {state['base_digest']}, this "
                f"one has {self.adapted.base_digest}: give the same module.policy and temperature"
            )
        wanted = {_ADAPTERS + key for key in self.adapted.learned()}
        if wanted != set(checkpoint["state_dict"]):
            odd = sorted(wanted ^ set(checkpoint["state_dict"]))
            raise InvalidArgument(f"the checkpoint has other adapters than this module: {odd[0]}")
        checkpoint["state_dict"] = {**self.state_dict(), **checkpoint["state_dict"]}
        self.rounds = state["rounds"]

    def _terms(self, batch: Minibatch, split: str) -> tuple[Terms, Tensor]:
        """Terms of the loss, and how far the policy is from where the round began."""
        rows = batch.rows
        told = evaluate(self.adapted.network, rows.seen, rows.chosen, rows.there)
        terms = ppo(
            told.log_probabilities,
            told.entropies,
            told.values,
            logged=batch.logged,
            advantages=batch.advantages,
            returns=batch.returns,
            before=batch.before,
            base=batch.base,
            weights=batch.weights,
            config=self.ppo,
        )
        self._values[split].append((told.values.detach(), batch.returns))
        return terms, kl(batch.start, told.log_probabilities.detach())

    def _note(self, split: str, batch: Minibatch, terms: Terms, **more: Tensor) -> None:
        told = {
            "loss": terms.loss.detach(),
            "policy_loss": terms.policy,
            "value_loss": terms.value,
            "entropy": terms.entropy,
            "base_kl": terms.base,
            "clip_fraction": terms.clipped,
            **more,
        }
        num = len(batch.logged)
        values = {f"simic/{split}/{name}": value for name, value in told.items()}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=num)

    def _note_round(self, split: str) -> None:
        told = dict(self._of_round.get(split, {}))
        if self._values[split]:
            values, returns = map(torch.cat, zip(*self._values[split], strict=True))
            explained = explained_variance(values, returns)
            if math.isfinite(explained):
                told["explained_variance"] = explained
            self._values[split].clear()
        self.log_dict({f"simic/{split}/{name}": value for name, value in told.items()})
