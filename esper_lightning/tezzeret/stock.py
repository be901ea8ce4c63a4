"""What of the library is at hand in this process: loaded before it is needed, never in a step."""

import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from esper_lightning.leyline import EsperError
from esper_lightning.tezzeret.bundle import CODE, LIBRARIES, load
from esper_lightning.tezzeret.outcome import KIND, of_artifact
from esper_lightning.tezzeret.recipe import Recipe, key, this_machine
from esper_lightning.urza import Library

log = logging.getLogger(__name__)


class Tally(msgspec.Struct, kw_only=True):
    """What became of those who asked.

    Attributes:
        compiled: branches that run compiled.
        eager: branches for which the library says eager.
        unknown: branches that nothing is known of, or whose artifact could not be used.
        damaged: artifacts that could not be used.
        lookup_ms: time of the last look-ups at the library, the loading of code included.
        retries: outcomes whose making failed and was tried once more.
        compile_s: seconds that making outcomes took, in the background.
        take_ms: time that all branches of the last boundary with new ones waited for code.
        fallbacks: calls of a compiled branch that ran eager, because they were called otherwise.
    """

    compiled: int = 0
    eager: int = 0
    unknown: int = 0
    damaged: int = 0
    lookup_ms: list[float] = []
    retries: int = 0
    compile_s: float = 0.0
    take_ms: float = 0.0
    fallbacks: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of those who asked for whom the library knew an outcome; 0 before any asked."""
        asked = self.compiled + self.eager + self.unknown
        return (self.compiled + self.eager) / asked if asked else 0.0


class Compiled:
    """Runs a branch by compiled code where it is called as it was compiled for, else eager.

    Args:
        function: ``fn(branch, x)`` of a bundle.
        asked: what it was compiled for.
        tally: counts the calls that ran eager.
    """

    def __init__(self, function: Callable[..., Any], asked: Recipe, tally: Tally) -> None:
        example = asked.input()
        self._function: Any = function
        self._call = (example.shape, example.stride(), example.dtype, example.requires_grad)
        self._device = asked.device
        self._tally = tally

    def __call__(self, branch: nn.Module, x: Tensor) -> Tensor:
        """The branch's output for ``x``."""
        if (
            (x.shape, x.stride(), x.dtype, x.requires_grad) == self._call
            and torch.is_grad_enabled()
            and not torch.is_autocast_enabled(self._device)
            and _get_current_dispatch_mode() is None  # it would see nothing of compiled code
            and not _has_hooks(branch)
            and self._function.guard_check(branch, x)
        ):
            out: Tensor = self._function.fn(branch, x)
            return out
        self._tally.fallbacks += 1
        eager: Tensor = branch(x)
        return eager


class Stock:
    """Outcomes of the library that this process has looked up, and the code that it has loaded.

    Args:
        library: to look in.

    Attributes:
        ready: names of blueprints that compiled code is at hand for.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self.tally = Tally()
        self.ready: set[str] = set()
        self._known: dict[str, Compiled | None] = {}

    def prefetch(self, asked: Recipe) -> bool:
        """Look a recipe up and load its code, unless that is done; True when it is known.

        What is damaged, or was signed by somebody else, is not used: a warning says so.
        """
        name = key(asked, this_machine(asked.device))
        if name in self._known:
            return True
        began = time.perf_counter()
        try:
            artifact = self.library.get(KIND, name)
            if artifact is None:
                return False
            if of_artifact(artifact).is_compiled:
                function = load(artifact.read(CODE), artifact.read(LIBRARIES))
                self._known[name] = Compiled(function, asked, self.tally)
                self.ready.add(asked.blueprint)
            else:
                self._known[name] = None
        except (EsperError, msgspec.ValidationError) as error:
            self.tally.damaged += 1
            log.warning("%s stays eager: %s", asked.blueprint, error)
            return False
        self.tally.lookup_ms.append(1e3 * (time.perf_counter() - began))
        return True

    def knows(self, asked: Recipe) -> bool:
        """Whether the outcome of a recipe is at hand."""
        return key(asked, this_machine(asked.device)) in self._known

    def take(self, asked: Recipe) -> Compiled | None:
        """The compiled code for a branch that is planted now; None for eager.

        Nothing is read from disk.
        """
        name = key(asked, this_machine(asked.device))
        if name not in self._known:
            self.tally.unknown += 1
            return None
        found = self._known[name]
        if found is None:
            self.tally.eager += 1
        else:
            self.tally.compiled += 1
        return found


def _has_hooks(branch: nn.Module) -> bool:
    """Compiled code would not call them."""
    return any(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        for module in branch.modules()
    )
