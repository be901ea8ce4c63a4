"""Mutates the network: grafts slots, guards the host in the step, runs the epoch boundary."""

import dataclasses
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from esper_lightning import karn
from esper_lightning.callbacks.batch_again import BatchAgain, ModuleLoss
from esper_lightning.callbacks.batches import num_rows, probe_example
from esper_lightning.callbacks.boundary import Boundary, Controller, Witness
from esper_lightning.callbacks.checkpoint_checks import CheckpointChecks
from esper_lightning.callbacks.costs import Costs
from esper_lightning.callbacks.event_stream import EventStream, Listener
from esper_lightning.callbacks.fossils import Fossils, read_fossils
from esper_lightning.callbacks.fresh_metrics import OWN_PREFIX, TRAINING_FLOPS, FreshMetrics
from esper_lightning.callbacks.horizon import max_epochs
from esper_lightning.callbacks.kasmina_arguments import check_arguments
from esper_lightning.callbacks.optimizer_hooks import OptimizerHooks
from esper_lightning.callbacks.reducer import Reducer
from esper_lightning.callbacks.requirements import check_supported
from esper_lightning.callbacks.resumption import Resumption, of_rank, why_inexact
from esper_lightning.callbacks.slot_paths import fits, network_of, slot_paths
from esper_lightning.callbacks.state_version import STATE_VERSION
from esper_lightning.callbacks.treatment import HealthCheck
from esper_lightning.callbacks.wrapped_hooks import WrappedHooks
from esper_lightning.kasmina import (
    BuildBranch,
    LifecycleRules,
    Moment,
    Phase,
    PhaseCalls,
    Ranks,
    SecondPasses,
    SeedBed,
    average_seeds,
    check_eager,
    host_overflow,
    insert_slots,
)
from esper_lightning.leyline import CommandRefused, Incubation, Objective, RunEnded, RunStarted
from esper_lightning.nissa.versions import versions
from esper_lightning.tolaria import Tolaria

log = logging.getLogger(__name__)


class Kasmina(Callback):
    """Mutates the network: gives it slots, and lets seeds live in them.

    Works on any LightningModule with automatic optimisation and one optimiser. A controller (the
    callback ``Tamiyo``, or anything assigned to :attr:`controller`) says what is planted where.

    Args:
        slots: module paths, or ``"auto"`` for the blocks of the network (needs the module's
            ``example_input_array``).
        root: submodule to which slot paths are relative, empty for the LightningModule itself; None
            takes the host of a ``Tolaria``, and any other module itself.
        monitor: validation metric that gates and policies look at, as logged.
        mode: ``min`` or ``max``.
        incubation: how a seed is raised: ``direct``, ``straight_through`` or ``shadow``.
        loss: ``fn(module, batch) -> loss``, what ``training_step`` minimises, for passes beside the
            step: shadow incubation needs it, the isolation monitor is off without it. It must log
            nothing. None takes that of a ``Tolaria``; for any other module there is none.
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
        root: str | None = None,
        monitor: str = "val/loss",
        mode: str = "min",
        incubation: Incubation | str = Incubation.DIRECT,
        loss: ModuleLoss | None = None,
        fossils: Fossils = (),
        rules: LifecycleRules | None = None,
        build: BuildBranch = karn.build,
    ) -> None:
        super().__init__()
        check_arguments(
            slots=slots,
            monitor=monitor,
            mode=mode,
            incubation=incubation,
            loss=loss,
            rules=rules,
            build=build,
        )
        self.slots = slots
        self.root = root
        self.monitor, self.mode = monitor, mode
        self.incubation = Incubation(incubation)
        self.loss = loss
        self.fossils = read_fossils(fossils)
        self.rules = rules or LifecycleRules()
        self.build = build
        self.controller: Controller | None = None
        self.governor: HealthCheck | None = None
        self.witness: Witness | None = None
        self.run_id = uuid.uuid4().hex[:12]
        self.host_parameters = 0
        self.costs = Costs()
        self._bed: SeedBed | None = None
        self._stream = EventStream()
        self._metrics = FreshMetrics(monitor)
        self._hooks = WrappedHooks()
        self._calls = PhaseCalls({})
        self._again: BatchAgain | None = None
        self._resumed = False
        self._stage = ""
        self._began_at = 0
        self._closed: Boundary | None = None
        self._resumption = Resumption()
        self._in_epoch = False
        self._open_epoch: list[dict[str, Any]] | None = None
        self._is_rest = False
        self._had_loss = False
        self._ranks = Ranks()
        self._reducer = Reducer()

    @property
    def ranks(self) -> Ranks:
        """The processes that train together; known from ``setup`` on."""
        return self._ranks

    @property
    def bed(self) -> SeedBed:
        """The slots; there from ``setup`` on."""
        if self._bed is None:
            raise CommandRefused("Kasmina has no slots yet; they are grafted in Trainer.fit")
        return self._bed

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with all events of the run, until what is returned is called."""
        return self._stream.subscribe(listener)

    # -- set-up -----------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Graft the slots and, for a fit, give them their place in optimiser and clipping."""
        check_supported(trainer, pl_module)
        self._ranks = Ranks()
        self.run_id = self._ranks.first(lambda: self.run_id)
        self._stage, self._resumed = stage, False
        self._open_epoch, self._is_rest, self._in_epoch = None, False, False
        self._resumption.drop()
        if self._bed is None or self._bed.network is not network_of(pl_module, self.root):
            self._graft(pl_module)
        trainer.precision_plugin.convert_module(pl_module)  # before weights are restored
        checks = CheckpointChecks(trainer, pl_module, self.bed, state_key=self.state_key)
        self._hooks.wrap(pl_module, "on_load_checkpoint", checks.load)
        if stage == "fit":
            around = OptimizerHooks(self.bed)
            self._hooks.wrap(pl_module, "configure_optimizers", around.configure)
            self._hooks.wrap(pl_module, "configure_gradient_clipping", around.clip)
            self._hooks.wrap(pl_module, "optimizer_step", around.step)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the module its own hooks back."""
        self._calls.close()
        self._hooks.restore()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fill the parameter groups before optimiser state is restored."""
        if trainer.global_step == 0 and not self._resumed:
            self.bed.check_clocks()
        self._resumed, self._closed = False, None
        check_eager(pl_module, self.bed.slots)
        self.bed.bind(trainer.optimizers[0])
        self._stream.emit(
            RunStarted(
                run_id=self.run_id,
                slots=tuple(self.bed.slots),
                host_parameters=self.host_parameters,
                max_epochs=trainer.max_epochs,
                versions=versions(),
            )
        )
        moment = self._moment(trainer, epoch=trainer.current_epoch - 1)
        self._stream.emit(*self.bed.wake(moment))
        self.costs.begin_fit()
        self._reducer.begin(trainer, pl_module, self.bed)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on within the epoch in which the checkpoint was saved, if it was."""
        self._resumption.on_train_start(trainer, pl_module)
        if self._open_epoch is None:
            return
        opened = of_rank(self._open_epoch, self._ranks)
        device = trainer.strategy.root_device
        self.bed.watch.load_state_dict(
            tree_map_only(Tensor, lambda t: t.to(device), opened["watch"])
        )
        self._began_at, self._is_rest, self._in_epoch = opened["began_at"], True, True
        self.costs.topology = self.bed.topology()
        if opened["flops"] is not None:
            self.costs.meter.remember(self.costs.topology, opened["flops"])
        if self._again is not None:
            self._again.passes.checked_in = opened["checked_in"]

    # -- in the step ------------------------------------------------------------------------------

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to gather evidence anew."""
        self._resumption.on_train_epoch_start(trainer)
        self._in_epoch, self._is_rest, self._had_loss = False, False, False
        self._began_at = trainer.global_step
        self.bed.watch.start_epoch()
        self.costs.topology = self.bed.topology()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Move alpha; count the operations of a topology's first step."""
        self._resumption.on_train_batch_start()
        self._in_epoch = True
        self._calls.begin(Phase.TRAINING)
        self.bed.watch.before_step(trainer.global_step)
        if self._again is not None:
            self._again.keep(pl_module, batch, epoch=trainer.current_epoch, index=batch_idx)
        self.costs.begin_step()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run what comes beside the step; drop seed gradients that are not finite."""
        self._had_loss = True
        self.costs.meter.backward()
        if self._again is not None:
            self._again.run(trainer, pl_module, self.costs.topology)
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        skipped = host_overflow(pl_module, self.bed.slots) if scaled else None
        self.bed.watch.after_backward(skipped=skipped)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Let all ranks have the same gradients of seeds; measure them."""
        average_seeds(self.bed.slots.values(), self._ranks)
        self.bed.watch.before_optimizer_step(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take note of the loss and of what the step cost."""
        self.costs.end_step(num_rows(batch))
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        self.bed.watch.after_step(loss if isinstance(loss, Tensor) else None)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """No step is under way, however the last one ended."""
        self.costs.meter.abort()
        self._calls.begin(Phase.VALIDATION)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Know that this epoch's validation metrics are fresh."""
        self._calls.end(Phase.VALIDATION)
        if self._stage == "fit":
            self._metrics.note_validation(trainer)

    # -- the boundary -----------------------------------------------------------------------------

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Health, gates, controller, commands: in this order, whatever the order of callbacks."""
        self.costs.meter.abort()
        if self._is_rest:  # what was called before the checkpoint is not known
            self._calls.close()
        elif not self._had_loss:  # nor is what a batch that is not skipped would call
            self._calls.close()
            log.warning(
                "epoch %d trained nothing: training_step returned None for every batch",
                trainer.current_epoch + 1,
            )
        else:
            self._calls.end(Phase.TRAINING)
        boundary = self._boundary(self._common_moment(trainer, pl_module))
        boundary.run()
        self._reducer.follow(trainer, pl_module, self.bed)
        self._ranks.check_equal(self.bed.topology())
        self._closed, self._in_epoch, self._is_rest = boundary, False, False
        pl_module.log(f"{OWN_PREFIX}parameters", float(self.bed.num_parameters()), sync_dist=True)
        pl_module.log(TRAINING_FLOPS, self.costs.total, sync_dist=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the controller settle live seeds when nobody knew that the last epoch was the last.

        EarlyStopping decides after the boundary. What had not ramped out by now goes at once.
        """
        if self._closed is not None:
            self._closed.settle()
        self.bed.end()

    def _boundary(self, moment: Moment) -> Boundary:
        return Boundary(
            bed=self.bed,
            stream=self._stream,
            moment=moment,
            host_parameters=self.host_parameters,
            controller=self.controller,
            governor=self.governor,
            witness=self.witness,
            ranks=self._ranks,
        )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell that the run ended."""
        self._resumption.on_fit_end(trainer)
        self._end(trainer, "finished")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop counting; give the module its hooks back; tell that the run failed."""
        self.costs.meter.abort()
        self._calls.close()
        self._hooks.restore()
        if trainer.state.fn == TrainerFn.FITTING and self._stream.events:
            self._end(trainer, f"failed: {type(exception).__name__}: {exception}")

    # -- state ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What the slots' own records do not hold; called on all ranks."""
        self.costs.settle(self._ranks)
        return {
            "version": STATE_VERSION,
            "run_id": self.run_id,
            "bed": self.bed.state_dict(),
            "costs": self.costs.state_dict(),
            "metrics": self._metrics.state_dict(),
            "open_epoch": self._ranks.gather(self._within_epoch()) if self._in_epoch else None,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the run of :meth:`state_dict`; to evaluate a checkpoint rewinds no bill."""
        if self._stage != "fit":
            return
        self._resumed = True
        self.run_id = state_dict["run_id"]
        self.bed.load_state_dict(state_dict["bed"])
        self.costs.load_state_dict(state_dict["costs"])
        self._metrics.load_state_dict(state_dict["metrics"])
        self._open_epoch = state_dict["open_epoch"]

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what Lightning leaves out; warn of a moment from which no fit goes on exactly."""
        why = why_inexact(trainer) if self._in_epoch else ""
        self._resumption.save(checkpoint, trainer, self._ranks, inexact=why)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Hold what is restored when training starts."""
        if self._stage == "fit":
            self._resumption.load(checkpoint, self._ranks)

    # -- inside -----------------------------------------------------------------------------------

    def _common_moment(self, trainer: Trainer, pl_module: LightningModule) -> Moment:
        """This boundary, the same on all ranks; what they know of the epoch is the same then too.

        Buffers are those of the first rank, as they are in every forward pass of a
        ``DistributedDataParallel``.
        """
        moment = self._moment(trainer, epoch=trainer.current_epoch)
        self.costs.settle(self._ranks)
        self._ranks.take_from_first(pl_module.buffers())
        self.bed.watch.agree(self._ranks)
        total = self.costs.total
        return self._ranks.first(lambda: dataclasses.replace(moment, total_flops=total))

    def _within_epoch(self) -> dict[str, Any]:
        return {
            "began_at": self._began_at,
            "watch": self.bed.watch.state_dict(),
            "flops": self.costs.per_sample,
            "checked_in": self._again.passes.checked_in if self._again is not None else None,
        }

    def _graft(self, pl_module: LightningModule) -> None:
        network = network_of(pl_module, self.root)
        paths = slot_paths(pl_module, network, self.slots)
        slots = insert_slots(network, paths, build=self.build)
        self._calls = PhaseCalls(slots)
        self.host_parameters = sum(p.numel() for p in network.parameters()) - sum(
            p.numel() for slot in slots.values() for p in slot.branch_parameters()
        )
        loss = self.loss or (Tolaria.loss if isinstance(pl_module, Tolaria) else None)
        self._bed = SeedBed(
            network,
            slots,
            rules=self.rules,
            incubation=self.incubation,
            fits=fits,
            second_passes=loss is not None,
        )
        if loss is not None:
            passes = SecondPasses(
                pl_module, slots, rules=self.rules, meter=self.costs.meter, ranks=self._ranks
            )
            self._again = BatchAgain(loss, passes)
        elif self.incubation is Incubation.STRAIGHT_THROUGH:
            log.info("the isolation monitor is off: Kasmina(loss=fn) would tell it what to run")
        if not any(slot.branch_parameters() for slot in slots.values()):
            self.costs.host_topology = self._bed.topology()
        if probe_example(pl_module):
            self._bed.check_shapes()
        if self.fossils:
            self._bed.start_with(self.fossils)

    def _moment(self, trainer: Trainer, *, epoch: int) -> Moment:
        metrics, not_finite = self._metrics.of(trainer)
        steps = trainer.global_step - self._began_at
        return Moment(
            run_id=self.run_id,
            epoch=epoch,
            step=trainer.global_step,
            objective=Objective(name=self.monitor, mode=self.mode, value=metrics.get(self.monitor)),
            metrics=metrics,
            not_finite=not_finite,
            max_epochs=max_epochs(trainer, epoch=epoch, steps_per_epoch=steps),
            steps_per_epoch=steps,
            flops=self.costs.per_sample,
            host_flops=self.costs.host_per_sample,
            total_flops=self.costs.total,
        )

    def _end(self, trainer: Trainer, outcome: str) -> None:
        epoch, step = trainer.current_epoch, trainer.global_step
        if self.witness is not None:
            self._stream.emit(*self.witness.due(ending=outcome))
        self._stream.emit(RunEnded(run_id=self.run_id, epoch=epoch, step=step, outcome=outcome))
