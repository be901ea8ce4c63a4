"""What a computation costs, counted by torch."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.autograd import backward
from torch.utils.flop_counter import FlopCounterMode

from esper_lightning.tolaria import SplitDataModule


def flops_of(work: Callable[[], object]) -> float:
    """Of one call: matrix products and convolutions, forward and backward, nothing else."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def step_flops(net: nn.Module, data: SplitDataModule) -> float:
    """Of one sample, forward and backward. Leaves the network in eval mode, without gradients."""
    net.eval()
    x = data.example_input()

    def step() -> None:
        out: Tensor = net(x)
        backward(out.sum())

    flops = flops_of(step)
    net.zero_grad()
    return flops / len(x)
