"""Mutates the network: grafts slots, guards the host in the step, runs the epoch boundary."""

import dataclasses
import logging
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from msgspec.structs import replace
from torch import Tensor
from torch.optim import Optimizer

from esper_lightning import karn
from esper_lightning.callbacks.batches import num_rows, run_example
from esper_lightning.callbacks.fresh_metrics import OWN_PREFIX, FreshMetrics
from esper_lightning.callbacks.requirements import callbacks_of, check_supported
from esper_lightning.callbacks.wrapped_hooks import WrappedHooks
from esper_lightning.kasmina import (
    BuildBranch,
    FlopMeter,
    LifecycleRules,
    Moment,
    SeedBed,
    auto_slots,
    insert_slots,
    probing,
    slot_groups_in_new_optimizers,
    system_state,
)
from esper_lightning.leyline import (
    CommandRefused,
    Decision,
    Event,
    GrownSeed,
    Incubation,
    InvalidArgument,
    Objective,
    RunEnded,
    RunStarted,
    RunSummary,
    SlotShape,
    SystemState,
    UnknownSlot,
    decode,
)
from esper_lightning.nissa.versions import versions

log = logging.getLogger(__name__)

Controller = Callable[[SystemState], Sequence[Decision]]
Listener = Callable[[Event], None]


class Kasmina(Callback):
    """Mutates the network: gives it slots, and lets seeds live in them.

    Works on any LightningModule with automatic optimisation and one optimiser. A controller (the
    callback ``Tamiyo``, or anything assigned to :attr:`controller`) says what is planted where.

    Args:
        slots: module paths, or ``"auto"`` for the blocks of the network (needs the module's
            ``example_input_array``).
        root: submodule to which slot paths are relative, empty for the LightningModule itself.
        monitor: validation metric that gates and policies look at, as logged.
        mode: ``min`` or ``max``.
        incubation: how a seed is raised: ``direct`` or ``straight_through``.
        fossils: branches to begin with, for a static network: each a slot, a blueprint and its
            parameters; or the path of a finished run's ``summary.json``.
        rules: of the lifecycle.
        build: how to build a named branch.

    Raises:
        InvalidArgument: an argument that is not allowed.
    """

    def __init__(
        self,
        *,
        slots: str | Sequence[str] = "auto",
        root: str = "",
        monitor: str = "val/loss",
        mode: str = "min",
        incubation: Incubation | str = Incubation.DIRECT,
        fossils: str | Sequence[GrownSeed | Mapping[str, Any]] = (),
        rules: LifecycleRules | None = None,
        build: BuildBranch = karn.build,
    ) -> None:
        super().__init__()
        if mode not in ("min", "max"):
            raise InvalidArgument(f"mode must be 'min' or 'max', got {mode!r}")
        modes = [known.value for known in Incubation]
        if incubation not in modes:
            raise InvalidArgument(f"incubation {incubation!r} is unknown; allowed: {modes}")
        if isinstance(slots, str) and slots != "auto":
            raise InvalidArgument(f"slots must be 'auto' or a list of module paths, got {slots!r}")
        self.slots = slots
        self.root = root
        self.monitor, self.mode = monitor, mode
        self.incubation = Incubation(incubation)
        self.fossils = _grown(fossils)
        self.rules = rules or LifecycleRules()
        self.build = build
        self.controller: Controller | None = None
        self.run_id = uuid.uuid4().hex[:12]
        self.host_parameters = 0
        self.num_samples = 0
        self.meter = FlopMeter()
        self._bed: SeedBed | None = None
        self._events: list[Event] = []
        self._listeners: list[Listener] = []
        self._topology: object = None
        self._host_topology: object = None
        self._metrics = FreshMetrics(monitor)
        self._hooks = WrappedHooks()
        self._resumed = False
        self._began_at = 0
        self._closed: Moment | None = None

    @property
    def bed(self) -> SeedBed:
        """The slots; there from ``setup`` on."""
        if self._bed is None:
            raise CommandRefused("Kasmina has no slots yet; they are grafted in Trainer.fit")
        return self._bed

    def subscribe(self, listener: Listener) -> None:
        """Call ``listener`` with every event of the run, those that have been included."""
        if listener not in self._listeners:
            self._listeners.append(listener)
            for event in self._events:
                listener(event)

    # -- set-up -----------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Graft the slots and, for a fit, give them their place in optimiser and clipping."""
        check_supported(trainer, pl_module)
        if self._bed is None or self._bed.network is not self._network(pl_module):
            self._graft(pl_module)
        if stage == "fit":
            self._hooks.wrap(pl_module, "configure_optimizers", self._configure_optimizers)
            self._hooks.wrap(pl_module, "configure_gradient_clipping", self._clip_apart)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the module its own hooks back."""
        self._hooks.restore()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fill the parameter groups before optimiser state is restored."""
        if trainer.global_step == 0 and not self._resumed:
            self.bed.check_clocks()
        self._resumed, self._closed = False, None
        self.bed.bind(trainer.optimizers[0])
        self._emit(
            RunStarted(
                run_id=self.run_id,
                slots=tuple(self.bed.slots),
                host_parameters=self.host_parameters,
                max_epochs=trainer.max_epochs,
                versions=versions(),
            )
        )
        moment = self._moment(trainer, epoch=trainer.current_epoch - 1)
        self._emit(*self.bed.wake(moment))

    # -- in the step ------------------------------------------------------------------------------

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to gather evidence anew."""
        self._began_at = trainer.global_step
        self.bed.watch.start_epoch()
        self._topology = self.bed.topology()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Move alpha; count the operations of a topology's first step."""
        self.bed.watch.before_step(trainer.global_step)
        self.meter.begin(self._topology)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop seed gradients that are not finite."""
        self.meter.backward()
        self.bed.watch.after_backward()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Measure gradients."""
        self.bed.watch.before_optimizer_step(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take note of the loss and of what the step cost."""
        size = num_rows(batch)
        self.num_samples += size
        self.meter.end(self._topology, size)
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        self.bed.watch.after_step(loss if isinstance(loss, Tensor) else None)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """No step is under way, however the last one ended."""
        self.meter.abort()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Know that this epoch's validation metrics are fresh."""
        self._metrics.note_validation(trainer)

    # -- the boundary -----------------------------------------------------------------------------

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Health, gates, controller, commands: in this order, whatever the order of callbacks."""
        self.meter.abort()
        moment = self._moment(trainer, epoch=trainer.current_epoch)
        self._emit(*self.bed.close_epoch(moment))
        self._decide(moment)
        self._closed = moment
        pl_module.log(f"{OWN_PREFIX}parameters", float(self.bed.num_parameters()))
        pl_module.log(f"{OWN_PREFIX}training_flops", self.meter.total)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the controller settle live seeds when nobody knew that the last epoch was the last.

        EarlyStopping decides after the boundary.
        """
        moment = self._closed
        if moment is not None and not moment.is_last and self.bed.has_live_seeds():
            self._decide(dataclasses.replace(moment, max_epochs=moment.epoch + 1))

    def _decide(self, moment: Moment) -> None:
        state = system_state(self.bed, moment, host_parameters=self.host_parameters)
        self._emit(state)
        decisions = self.controller(state) if self.controller is not None else ()
        commanded: set[str] = set()
        for decision in decisions:
            self._carry_out(decision, moment, commanded)

    def _carry_out(self, decision: Decision, moment: Moment, commanded: set[str]) -> None:
        command = decision.command
        try:
            if command.slot and command.slot in commanded:
                raise CommandRefused(f"slot {command.slot!r} already had a command here")
            changes = self.bed.apply(command, moment)
        except (CommandRefused, InvalidArgument) as error:
            log.warning("refused: %s", error)
            self._emit(replace(decision, refused=str(error)))
            return
        commanded.add(command.slot)
        self._emit(decision, *changes)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell that the run ended."""
        self._end(trainer, "finished")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop counting; give the module its hooks back; tell that the run failed."""
        self.meter.abort()
        self._hooks.restore()
        if trainer.state.fn == TrainerFn.FITTING and self._events:
            self._end(trainer, f"failed: {type(exception).__name__}: {exception}")

    # -- state ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What the slots' own records do not hold."""
        return {
            "run_id": self.run_id,
            "num_samples": self.num_samples,
            "bed": self.bed.state_dict(),
            "meter": self.meter.state_dict(),
            "host_flops": self.host_flops_per_sample,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the run of :meth:`state_dict`."""
        self._resumed = True
        self.run_id = state_dict["run_id"]
        self.num_samples = state_dict["num_samples"]
        self.bed.load_state_dict(state_dict["bed"])
        self.meter.load_state_dict(state_dict["meter"])
        if state_dict["host_flops"] is not None:
            self.meter.remember(self._host_topology, state_dict["host_flops"])

    # -- costs ------------------------------------------------------------------------------------

    @property
    def flops_per_sample(self) -> float | None:
        """Training FLOPs of one sample in the last epoch that was trained."""
        return self.meter.per_sample(self._topology)

    @property
    def host_flops_per_sample(self) -> float | None:
        """Training FLOPs of one sample before any growth."""
        return self.meter.per_sample(self._host_topology)

    # -- inside -----------------------------------------------------------------------------------

    def _network(self, pl_module: LightningModule) -> torch.nn.Module:
        if self.root and self.root not in dict(pl_module.named_modules()):
            there = [name for name, _ in pl_module.named_children()]
            raise UnknownSlot(f"root {self.root!r} is not a submodule; there are {there}")
        return pl_module.get_submodule(self.root)

    def _graft(self, pl_module: LightningModule) -> None:
        network = self._network(pl_module)
        example = pl_module.example_input_array
        if not isinstance(self.slots, str):
            paths = list(self.slots)
        elif example is not None:
            with probing(pl_module):
                paths = auto_slots(network, lambda: run_example(pl_module), fits=_fits)
        else:
            raise InvalidArgument(
                "slots='auto' needs one batch of inputs to find the network's blocks: set "
                "self.example_input_array in the module, or name the slots"
            )
        slots = insert_slots(network, paths, build=self.build)
        self.host_parameters = sum(p.numel() for p in network.parameters()) - sum(
            p.numel() for slot in slots.values() for p in slot.branch_parameters()
        )
        self._bed = SeedBed(
            network, slots, rules=self.rules, incubation=self.incubation, fits=_fits
        )
        if not any(slot.branch_parameters() for slot in slots.values()):
            self._host_topology = self._bed.topology()
        if example is not None:
            with probing(pl_module):
                run_example(pl_module)
            self._bed.check_shapes()
        if self.fossils:
            self._bed.start_with(self.fossils)

    def _configure_optimizers(self, original: Callable[[], Any]) -> Any:
        with slot_groups_in_new_optimizers(self.bed.slots):
            return original()

    def _clip_apart(
        self,
        original: Callable[..., Any],
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """The host is clipped as it would be without seeds, each live seed by itself."""
        with self.bed.groups.without_seeds():
            original(
                optimizer,
                gradient_clip_val=gradient_clip_val,
                gradient_clip_algorithm=gradient_clip_algorithm,
            )
        if gradient_clip_val:
            by_value = str(gradient_clip_algorithm).endswith("value")
            key = "value" if by_value else "norm"
            self.bed.watch.clip_seeds(**{key: float(gradient_clip_val)})

    def _moment(self, trainer: Trainer, *, epoch: int) -> Moment:
        metrics = self._metrics.of(trainer)
        max_epochs = trainer.max_epochs if (trainer.max_epochs or -1) > 0 else None
        steps = trainer.global_step - self._began_at
        if max_epochs is None and trainer.max_steps > 0 and steps > 0:
            max_epochs = epoch + 1 + math.ceil((trainer.max_steps - trainer.global_step) / steps)
        may_stop = epoch + 1 >= (trainer.min_epochs or 0) and trainer.global_step >= (
            trainer.min_steps or 0
        )
        steps_over = 0 < trainer.max_steps <= trainer.global_step
        if epoch >= 0 and ((trainer.should_stop and may_stop) or steps_over):
            max_epochs = epoch + 1
        return Moment(
            run_id=self.run_id,
            epoch=epoch,
            step=trainer.global_step,
            objective=Objective(name=self.monitor, mode=self.mode, value=metrics.get(self.monitor)),
            metrics=metrics,
            max_epochs=max_epochs,
            steps_per_epoch=steps,
            flops=self.flops_per_sample,
            host_flops=self.host_flops_per_sample,
            total_flops=self.meter.total,
        )

    def _emit(self, *events: Event) -> None:
        for event in events:
            self._events.append(event)
            for listener in self._listeners:
                listener(event)

    def _end(self, trainer: Trainer, outcome: str) -> None:
        epoch, step = trainer.current_epoch, trainer.global_step
        self._emit(RunEnded(run_id=self.run_id, epoch=epoch, step=step, outcome=outcome))


def find(trainer: Trainer) -> Kasmina:
    """The Kasmina among a Trainer's callbacks.

    Raises:
        InvalidArgument: there is none, or more than one.
    """
    callbacks = callbacks_of(trainer)
    found = [callback for callback in callbacks if isinstance(callback, Kasmina)]
    if len(found) != 1:
        names = [type(callback).__name__ for callback in callbacks]
        raise InvalidArgument(
            f"one Kasmina callback is needed, the Trainer has {len(found)}; its callbacks: {names}"
        )
    return found[0]


def _grown(fossils: str | Sequence[GrownSeed | Mapping[str, Any]]) -> list[GrownSeed]:
    if isinstance(fossils, str):
        path = Path(fossils)
        if not path.is_file():
            raise InvalidArgument(f"fossils={fossils!r}: no such file; give a run's summary.json")
        return list(decode(path.read_bytes(), RunSummary, what=fossils).grown)
    return [msgspec.convert(f, GrownSeed, from_attributes=True) for f in fossils]


def _fits(shape: SlotShape) -> bool:
    return bool(karn.fitting(shape))
