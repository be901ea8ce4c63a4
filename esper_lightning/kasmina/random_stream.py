"""Random numbers for what must not disturb the run's own."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


@contextmanager
def undisturbed_random(device: torch.device | None = None) -> Iterator[None]:
    """Leave the global generators of torch, NumPy and Python as they were found.

    Args:
        device: whose torch generator is kept beside the CPU's.
    """
    python, legacy = random.getstate(), np.random.get_state()
    generators = torch_generators(device)
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        random.setstate(python)
        np.random.set_state(legacy)


class RandomStream:
    """A torch random stream of one seed's own.

    Whatever runs under :meth:`use` draws from this stream, and the global generators of torch,
    NumPy and Python stand afterwards where they stood before.

    Args:
        seed: where the stream begins.
    """

    def __init__(self, seed: int) -> None:
        self._state = torch.Generator().manual_seed(seed).get_state()
        self._seed = seed
        self._device_states: dict[str, Tensor] = {}

    @contextmanager
    def use(self, device: torch.device | None = None) -> Iterator[None]:
        """Draw from this stream on the CPU and on ``device``."""
        with undisturbed_random(device):
            generators = torch_generators(device)
            generators[0].set_state(self._state)
            for generator in generators[1:]:
                known = self._device_states.get(str(generator.device))
                if known is None:
                    generator.manual_seed(self._seed)
                else:
                    generator.set_state(known)
            try:
                yield
            finally:
                self._state = generators[0].get_state()
                for generator in generators[1:]:
                    self._device_states[str(generator.device)] = generator.get_state()

    def state(self) -> dict[str, bytes]:
        """Where the stream stands, by device."""
        states = {"cpu": self._state, **self._device_states}
        return {device: state.numpy().tobytes() for device, state in states.items()}

    def restore(self, state: dict[str, bytes]) -> None:
        """Continue where :meth:`state` was taken."""
        tensors = {
            device: torch.frombuffer(bytearray(raw), dtype=torch.uint8)
            for device, raw in state.items()
        }
        self._state = tensors.pop("cpu")
        self._device_states = tensors


def torch_generators(device: torch.device | None) -> list[torch.Generator]:
    """The global torch generators that work on ``device`` draws from, the CPU's first."""
    generators = [torch.default_generator]
    if device is not None and device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    return generators


def derived_seed(*parts: object) -> int:
    """A 63-bit seed that depends on all parts and on nothing else."""
    digest = hashlib.sha256("\0".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
