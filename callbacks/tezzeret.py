"""Lets what grew run by compiled code where that was measured to be faster."""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from msgspec.structs import replace
from torch import nn

from esper_lightning import karn
from esper_lightning.callbacks.calls_seen import CallsSeen
from esper_lightning.callbacks.found import find
from esper_lightning.callbacks.fresh_metrics import OWN_PREFIX
from esper_lightning.callbacks.requirements import callbacks_of
from esper_lightning.callbacks.tamiyo import Tamiyo
from esper_lightning.kasmina import Grown, SeedBed, grown_in, run_by
from esper_lightning.leyline import (
    Attachment,
    EsperError,
    Event,
    Incubation,
    InvalidArgument,
    ParameterValue,
    Services,
    SystemState,
)
from esper_lightning.tamiyo import Policy
from esper_lightning.tezzeret import (
    NotMade,
    Recipe,
    Stock,
    Tally,
    Workshop,
    key,
    recipe_for,
    this_machine,
)
from esper_lightning.urza import Library, default_root

log = logging.getLogger(__name__)

LOGGED = (
    "compiled",
    "eager",
    "unknown",
    "damaged",
    "fallbacks",
    "hit_rate",
    "compile_s",
    "take_ms",
)
"""What is logged of the tally, after ``growth/``."""

MAX_CANDIDATES = 64
"""Most recipes that one boundary asks for."""


class Tezzeret(Callback):
    """Mutates the network: lets what grew run by compiled code where that is faster.

    At every boundary it asks the policy what may be planted next and, on threads of its own, looks
    that up in the library and loads what is there; with ``compile`` it has made, in child
    processes, what is not. A seed that is planted takes what is at hand at that moment and else
    runs eager: nothing waits.

    It does nothing where torch is asked for deterministic algorithms, since which code is at hand
    depends on the clock; nor beside other ranks, nor without a library.

    Args:
        library: its folder; None takes the user's own (``ESPER_URZA_ROOT``).
        compile: whether to have made what the library does not have.
        limit: child processes at a time.
        timeout: seconds that a child may take for each of its two steps.

    Attributes:
        tally: what became of those who asked.
    """

    def __init__(
        self,
        *,
        library: str | Path | None = None,
        compile: bool = False,  # pylint: disable=redefined-builtin
        limit: int = 1,
        timeout: float = 180.0,
    ) -> None:
        super().__init__()
        if limit < 1 or not timeout > 0:
            raise InvalidArgument(
                f"limit is at least 1 and timeout more than 0 seconds, got {limit} and {timeout}"
            )
        self.library = default_root() if library is None else Path(library)
        self.compile = compile
        self.limit = limit
        self.timeout = timeout
        self.tally = Tally()
        self._bed: SeedBed | None = None
        self._stock: Stock | None = None
        self._workshop: Workshop | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._calls: CallsSeen | None = None
        self._policy: Policy | None = None
        self._asked: set[str] = set()
        self._runs: WeakKeyDictionary[nn.Module, tuple[str, bool]] = WeakKeyDictionary()

    # -- begin and end ----------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the library, and look at how slots are called."""
        kasmina = find(trainer)
        idle = self._why_idle(trainer)
        if idle:
            log.info("seeds run eager: %s", idle)
            return
        try:
            library = Library(self.library)
            if self.compile:
                self._workshop = Workshop(library, limit=self.limit, timeout=self.timeout)
        except EsperError as error:
            log.warning("seeds run eager: %s", error)
            return
        self._bed = kasmina.bed
        self._asked = set()
        self._stock = Stock(library)
        self.tally = self._stock.tally
        self._threads = ThreadPoolExecutor(self.limit, thread_name_prefix="tezzeret-prepare")
        self._calls = CallsSeen(self._bed.slots)
        deciding = [each for each in callbacks_of(trainer) if isinstance(each, Tamiyo)]
        self._policy = deciding[0].policy if deciding else None
        kasmina.subscribe(self._hear)

    def report_services(self, services: Services) -> Services:
        """``services`` with the blueprints that compiled code is at hand for, unless it is idle."""
        if self._stock is None:
            return services
        return replace(services, compiled=tuple(sorted(self._stock.ready)))

    def _why_idle(self, trainer: Trainer) -> str:
        if torch.are_deterministic_algorithms_enabled():
            return "with deterministic=true nothing depends on what was compiled in time"
        if trainer.world_size > 1:
            return f"{trainer.world_size} ranks train together"
        if not self.compile and not self.library.is_dir():
            return f"there is no library in {self.library}"
        return ""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End what is under way."""
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """End what is under way."""
        self._close()

    def _close(self) -> None:
        if self._calls is not None:
            self._calls.close()
        if self._workshop is not None:
            self._workshop.close()
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        for branch in self._runs:
            run_by(branch, None)
        self._runs.clear()
        self._bed = self._stock = self._calls = None
        self._workshop = self._threads = self._policy = None

    # -- in the first step of an epoch ------------------------------------------------------------

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """See how slots are called."""
        if self._calls is not None and batch_idx == 0:
            self._calls.open()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """They were seen."""
        if self._calls is not None:
            self._calls.close()

    # -- at the boundary --------------------------------------------------------------------------

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let branches that came or changed their ways take what is at hand."""
        if self._bed is None or self._calls is None or self._stock is None:
            return
        began, taken = time.perf_counter(), False
        for path, slot in self._bed.slots.items():
            for grown in grown_in(slot):
                asked = self._recipe_of(path, grown)
                if asked is None:
                    continue
                # Anew when it is called otherwise, or when code for it has come: after a resume.
                state = (str(asked), self._stock.knows(asked))
                if self._runs.get(grown.branch) != state:
                    self._runs[grown.branch] = state
                    run_by(grown.branch, self._stock.take(asked))
                    taken = True
        if taken:
            self.tally.take_ms = 1e3 * (time.perf_counter() - began)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log how many branches run compiled, and how often the library knew."""
        if self._stock is None:
            return
        for name in LOGGED:
            pl_module.log(f"{OWN_PREFIX}{name}", float(getattr(self.tally, name)))
        if self.tally.lookup_ms:
            pl_module.log(f"{OWN_PREFIX}lookup_ms", self.tally.lookup_ms[-1])

    def _hear(self, event: Event) -> None:
        """Prepare what may be planted at the next boundary, and what has grown before this fit."""
        if not isinstance(event, SystemState) or self._policy is None:
            return
        if self._threads is None or self._bed is None:
            return
        raised_apart = self._bed.incubation is not Incubation.DIRECT
        for choice in self._policy.candidates(event)[:MAX_CANDIDATES]:
            for apart in sorted({raised_apart, False}, reverse=True):  # in the order of need
                self._ask(
                    self._recipe(choice.slot, choice.blueprint, choice.parameters, apart=apart)
                )
        for path, slot in self._bed.slots.items():
            for grown in grown_in(slot):
                self._ask(self._recipe_of(path, grown))

    def _ask(self, asked: Recipe | None) -> None:
        """Have a recipe prepared, once in a fit."""
        if asked is not None and self._threads is not None and str(asked) not in self._asked:
            self._asked.add(str(asked))
            self._threads.submit(self._prepare, asked)

    def _recipe_of(self, path: str, grown: Grown) -> Recipe | None:
        """Of a branch; None if it cannot be compiled, or another function built it."""
        made = self._recipe(path, grown.blueprint, grown.parameters, apart=grown.apart)
        return made if made is not None and type(grown.branch) is made.branch_class() else None

    def _recipe(
        self, path: str, name: str, parameters: Mapping[str, ParameterValue], *, apart: bool
    ) -> Recipe | None:
        """How a blueprint would be called in a slot; None if it was not seen or is not compiled.

        Args:
            path: of the slot.
            name: of the blueprint.
            parameters: of its constructor.
            apart: no gradient flows from it into the host.
        """
        assert self._bed is not None
        assert self._calls is not None
        slot, blueprint = self._bed.slots.get(path), karn.CATALOGUE.get(name)
        if slot is None or blueprint is None or path not in self._calls.inputs:
            return None
        shape = slot.record.shape
        assert shape is not None  # it was called
        is_series = blueprint.attachment is Attachment.SERIES
        seen = (self._calls.outputs if is_series else self._calls.inputs)[path]
        try:
            made = recipe_for(
                blueprint,
                shape,
                parameters,
                batch=seen.rows,
                dtype=seen.dtype,
                device=seen.device,
                channels_last=seen.channels_last,
                input_requires_grad=seen.requires_grad and not apart,
            )
            key(made, this_machine(made.device))
        except InvalidArgument as error:
            log.debug("%s runs eager: %s", name, error)
            return None
        return made

    def _prepare(self, asked: Recipe) -> None:
        """On a thread of its own: have the outcome at hand, if it is known or can be made."""
        assert self._stock is not None
        workshop = self._workshop
        try:
            if not self._stock.prefetch(asked) and workshop is not None:
                self.tally.compile_s += workshop.make(asked).seconds
                self._stock.prefetch(asked)
        except NotMade as error:
            log.info("%s was not made: %s", asked, error)
        except (EsperError, OSError) as error:
            log.warning("%s stays eager: %s", asked, error)
        finally:
            if workshop is not None:
                self.tally.retries = workshop.retries
