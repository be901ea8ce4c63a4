"""What a computation costs, counted as that of runs."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.autograd import backward

from esper_lightning.kasmina import FlopCount


def flops_of(work: Callable[[], object]) -> float:
    """Of one call: matrix products and convolutions, forward and backward, nothing else."""
    with FlopCount() as count:
        work()
    return float(count.total)


def sample_flops(net: nn.Module, x: Tensor) -> float:
    """Of one sample of the batch ``x``, forward and backward.

    Leaves the network in eval mode, without gradients.
    """
    net.eval()

    def step() -> None:
        out: Tensor = net(x)
        backward(out.sum())

    flops = flops_of(step)
    net.zero_grad()
    return flops / len(x)
