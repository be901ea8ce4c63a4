"""Other ways to run a branch: compiled code that gives what the branch itself would.

They are kept beside the branch, not in it, so that no copy, checkpoint or export knows of them.
"""

from collections.abc import Callable
from weakref import WeakKeyDictionary

from torch import Tensor, nn

Run = Callable[[nn.Module, Tensor], Tensor]

_runs: WeakKeyDictionary[nn.Module, Run] = WeakKeyDictionary()


def run_by(branch: nn.Module, run: Run | None) -> None:
    """From now on, let slots run ``branch`` by ``run(branch, x)``; None for itself."""
    if run is None:
        _runs.pop(branch, None)
    else:
        _runs[branch] = run


def output_of(branch: nn.Module, x: Tensor) -> Tensor:
    """What ``branch`` gives for ``x``, by the way that :func:`run_by` has set."""
    run = _runs.get(branch)
    output: Tensor = branch(x) if run is None else run(branch, x)
    return output
