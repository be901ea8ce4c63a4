"""The telemetry hub: what the parts of a run report, in one state."""

import hashlib
import time
from typing import Any, Protocol, runtime_checkable

import msgspec
import torch
from lightning.pytorch import Trainer
from msgspec.structs import replace

from esper_lightning.callbacks.kasmina import Kasmina
from esper_lightning.callbacks.requirements import callbacks_of
from esper_lightning.karn import CATALOGUE
from esper_lightning.kasmina import HostLayers
from esper_lightning.leyline import Event, Hardware, Intervention, LayerState, Services, SystemState


@runtime_checkable
class Beside(Protocol):
    """A callback of something that runs beside training."""

    def report_services(self, services: Services) -> Services:
        """``services`` with how it stands."""


class Telemetry:
    """Completes Kasmina's state of the slots by what the other parts know.

    What depends on clock or machine is told only where torch is not asked for deterministic
    algorithms: a run whose decisions must repeat has nothing else to decide by.

    It goes with one run, which may have several fits: :meth:`begin` comes first in each.
    """

    def __init__(self) -> None:
        self._trainer: Trainer
        self._kasmina: Kasmina
        self._layers = HostLayers()
        self._rollbacks = 0
        self._is_deterministic = True
        self._began = self._stepped = 0.0
        self._boundary_s: float | None = None

    def begin(self, trainer: Trainer, kasmina: Kasmina) -> None:
        """A fit begins."""
        self._trainer, self._kasmina = trainer, kasmina
        self._is_deterministic = torch.are_deterministic_algorithms_enabled()
        self._stepped = 0.0
        self._boundary_s = None

    def hear(self, event: Event) -> None:
        """Count what was undone."""
        if isinstance(event, Intervention) and event.restored is not None:
            self._rollbacks += 1

    def begin_epoch(self) -> None:
        """Steps begin; the boundary before them is over."""
        now = time.perf_counter()
        if self._stepped and not self._is_deterministic:
            self._boundary_s = now - self._stepped
        self._began = now

    def begin_step(self) -> None:
        """Look how the layers are called, if that is not known yet."""
        self._layers.open(self._kasmina.bed.network)

    def end_step(self) -> None:
        """They were looked at."""
        self._layers.close()
        self._stepped = time.perf_counter()

    def complete(self, state: SystemState) -> SystemState:
        """The state that a controller sees at this boundary."""
        strategy = self._trainer.strategy
        device = strategy.root_device
        memory = (
            torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
        )
        return replace(
            state,
            layers=self._layers.found,
            hardware=Hardware(
                device=device.type,
                processes=self._trainer.world_size,
                precision=str(self._trainer.precision),
                memory_bytes=memory,
            ),
            learning_rate=float(self._trainer.optimizers[0].param_groups[0]["lr"]),
            rollbacks=self._rollbacks if self._kasmina.governor is not None else None,
            catalogue=catalogue_digest(),
            services=None if self._is_deterministic else self._services(state.steps_per_epoch),
        )

    def _services(self, num_steps: int) -> Services:
        services = Services(
            step_s=(self._stepped - self._began) / num_steps if num_steps else None,
            boundary_s=self._boundary_s,
        )
        for callback in callbacks_of(self._trainer):
            if isinstance(callback, Beside):
                services = callback.report_services(services)
        return services

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run would not see again."""
        layers: list[Any] = msgspec.to_builtins(self._layers.found)
        return {"layers": layers, "rollbacks": self._rollbacks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._layers.found = msgspec.convert(state["layers"], tuple[LayerState, ...])
        self._rollbacks = state["rollbacks"]


def catalogue_digest() -> str:
    """SHA-256 of what may be planted: the names and versions of all blueprints."""
    rows = (f"{each.id} {each.name} {each.approval}\n" for each in CATALOGUE.values())
    return hashlib.sha256("".join(sorted(rows)).encode()).hexdigest()
