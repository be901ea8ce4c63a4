"""What is asked of a checkpoint before its weights are loaded into a network with slots."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

from esper_lightning.callbacks.requirements import callbacks_of
from esper_lightning.callbacks.state_version import check_version
from esper_lightning.kasmina import SeedBed, SeedSlot, saved_slots
from esper_lightning.kasmina.host_paths import host_modules
from esper_lightning.leyline import InvalidArgument, UnsupportedTraining

_TRIALS_AT_START = (BatchSizeFinder.on_fit_start, LearningRateFinder.on_fit_start)
"""Of callbacks that try out steps in ``on_fit_start``; subclasses may do so elsewhere."""


class CheckpointChecks:
    """Refuses what a network with slots cannot go on from, while it is as it was.

    Args:
        trainer: that loads a checkpoint.
        module: that it is loaded into.
        bed: the module's slots.
        state_key: of Kasmina, among the states of callbacks.
    """

    def __init__(
        self, trainer: Trainer, module: LightningModule, bed: SeedBed, *, state_key: str
    ) -> None:
        self._trainer = trainer
        self._module = module
        self._bed = bed
        self._state_key = state_key

    def load(self, original: Callable[..., Any], checkpoint: dict[str, Any]) -> None:
        """Around ``on_load_checkpoint``, the last hook before weights are loaded.

        Raises:
            DecodeError: another release saved the state of Kasmina.
            UnsupportedTraining: a finder would lose the place at which the fit is to go on.
            InvalidArgument: the slots are not those of the checkpoint.
        """
        is_fit = self._trainer.state.fn == TrainerFn.FITTING
        if is_fit:
            saved = (checkpoint.get("callbacks") or {}).get(self._state_key)
            if saved is not None:
                check_version(saved, of="Kasmina")
            check_finders(self._trainer, checkpoint)
        original(checkpoint)  # it may change the checkpoint, and make place for what has grown
        network = self._bed.network
        slots = self._bed.slots.values() if is_fit else _slots(network)
        check_same_slots(self._module, network, slots, checkpoint["state_dict"])


def check_finders(trainer: Trainer, checkpoint: Mapping[str, Any]) -> None:
    """Refuse a finder in a fit that goes on from a checkpoint.

    It tries out steps before Lightning has restored the loops, and then restores its own checkpoint
    of that moment, also in place of the one that was asked for.

    Raises:
        UnsupportedTraining: which, why, what to do.
    """
    if checkpoint["global_step"] == trainer.global_step:  # a finder's own, or nothing to lose
        return
    for callback in callbacks_of(trainer):
        if getattr(type(callback), "on_fit_start", None) in _TRIALS_AT_START:
            raise UnsupportedTraining(
                f"{type(callback).__name__} in a fit that goes on from a checkpoint of step "
                f"{checkpoint['global_step']}: after its trial steps Lightning begins again at "
                f"epoch 0, with the weights, the growth and the bill of the checkpoint; leave it "
                f"out and set what it found when the run began"
            )


def check_same_slots(
    module: LightningModule,
    network: nn.Module,
    slots: Iterable[SeedSlot],
    state_dict: Mapping[str, Any],
) -> None:
    """Refuse weights of a network with other slots.

    Where the module takes part of its weights only (``strict_loading=False``), a slot of which the
    checkpoint holds nothing at all is as it may be.

    Args:
        module: that weights are loaded into.
        network: its part to which the paths of slots are relative.
        slots: that it has.
        state_dict: of the checkpoint.

    Raises:
        InvalidArgument: which slots are where, and what to do.
    """
    root = next(path for path, found in module.named_modules() if found is network)
    prefix = f"{root}." if root else ""
    state = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
    ours = {id(slot) for slot in slots}
    here = [path for path, found in host_modules(network).items() if id(found) in ours]
    there = saved_slots(state)
    without = [path for path in here if path not in there]
    if not module.strict_loading:
        without = [path for path in without if any(key.startswith(f"{path}.") for key in state)]
    if not without and set(there) <= set(here):
        return
    if not there:
        raise InvalidArgument(
            f"the checkpoint is of a network without slots, and this one has {here}; to let it "
            f"grow, load the weights into a new module and give the fit no ckpt_path: "
            f"module.load_state_dict(torch.load(path, weights_only=True)['state_dict']); to go on "
            f"without growth, leave Kasmina out"
        )
    raise InvalidArgument(
        f"the checkpoint's slots are {there}, those of this network are {here}, and a run goes on "
        f"with the slots that it began with: Kasmina(slots={there}), kasmina.slots="
        f"[{','.join(there)}]; for its network alone, kasmina.restore(module, path, build=...)"
    )


def _slots(network: nn.Module) -> list[SeedSlot]:
    return [module for module in network.modules() if isinstance(module, SeedSlot)]
