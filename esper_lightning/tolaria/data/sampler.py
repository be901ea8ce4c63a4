"""The order in which training examples come."""

import hashlib
from collections.abc import Iterator

import torch
from torch.utils.data.distributed import DistributedSampler

from esper_lightning.leyline import InvalidArgument


class EpochShuffle(DistributedSampler[int]):
    """Shuffles examples by seed and epoch alone.

    The order is a pure function of ``(seed, epoch)``: it does not depend on what else drew random
    numbers, and the global generator is neither read nor advanced. Several ranks share one order,
    each takes every ``num_replicas``-th example; the first examples come twice where the number
    does not divide, so that all ranks take the same number of steps.

    It is a ``DistributedSampler`` because Lightning leaves those as they are: any other sampler it
    wraps into one that shuffles the shuffled order once more, by a seed of its own.

    Args:
        num_examples: to order, at least 1.
        seed: any integer.
        rank: of this process, below ``num_replicas``.
        num_replicas: number of ranks that share the examples.

    Raises:
        InvalidArgument: there is nothing to shuffle.
    """

    def __init__(
        self,
        num_examples: int,
        *,
        seed: int,
        rank: int = 0,
        num_replicas: int = 1,
    ) -> None:
        if num_examples < 1:
            raise InvalidArgument(f"EpochShuffle needs at least 1 example, got {num_examples}")
        super().__init__(range(num_examples), num_replicas=num_replicas, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.num_examples = num_examples

    def __iter__(self) -> Iterator[int]:
        # The epoch is read when the first index is taken, not when the iterator is made.
        order = self.order(self.epoch)
        for position in range(self.rank, self.total_size, self.num_replicas):
            yield order[position % self.num_examples]

    def order(self, epoch: int) -> list[int]:
        """The indices of an epoch, of all ranks."""
        return epoch_order(self.num_examples, seed=self.seed, epoch=epoch)


class EpochWindows(EpochShuffle):
    """Shuffled windows of one long sequence, cut at another place in each epoch.

    An index is the position at which a window begins. The windows of an epoch do not overlap: they
    follow each other from an offset below their length, which depends on seed and epoch alone, as
    their order does. Over the epochs every position is the first of some window.

    Args:
        num_starts: positions at which a window may begin, at least ``length``.
        length: of a window.
        num_windows: of an epoch, the first of its order; at most ``num_starts // length``, as many
            as fit behind the largest offset.
        seed: any integer.
        rank: of this process, below ``num_replicas``.
        num_replicas: number of ranks that share the windows.

    Raises:
        InvalidArgument: there are fewer windows, or none is asked for.
    """

    def __init__(
        self,
        num_starts: int,
        *,
        length: int,
        num_windows: int,
        seed: int,
        rank: int = 0,
        num_replicas: int = 1,
    ) -> None:
        self.num_whole = num_starts // length
        if not 1 <= num_windows <= self.num_whole:
            raise InvalidArgument(
                f"num_windows must be between 1 and the {self.num_whole} of length {length} that "
                f"begin at {num_starts} positions, got {num_windows}"
            )
        super().__init__(num_windows, seed=seed, rank=rank, num_replicas=num_replicas)
        self.length = length

    def order(self, epoch: int) -> list[int]:
        """Where the windows of an epoch begin, of all ranks."""
        offset = int(torch.randint(self.length, (), generator=_generator(self.seed, epoch, 1)))
        windows = epoch_order(self.num_whole, seed=self.seed, epoch=epoch)
        return [offset + self.length * window for window in windows[: self.num_examples]]


class EpochDraws(EpochShuffle):
    """The order of :class:`EpochShuffle`, in numbers that tell the epoch as well.

    Example ``i`` of epoch ``e`` comes as ``e * num_examples + i``: a number that no other draw of
    the run has. Data that differ from epoch to epoch learn in this way which one it is, in every
    worker, and a resumed run gives them the numbers of the uninterrupted one.
    """

    def __iter__(self) -> Iterator[int]:
        epoch = self.epoch
        for index in super().__iter__():
            yield epoch * self.num_examples + index


class EachOnce(DistributedSampler[int]):
    """Examples in order, each of them on one rank only.

    Unlike its base class it repeats none to give all ranks as many: metrics of several ranks are
    those of one. With fewer examples than ranks some come twice, so that no rank is left without.

    Args:
        num_examples: at least 1.
        rank: of this process, below ``num_replicas``.
        num_replicas: number of ranks that share the examples.
    """

    def __init__(self, num_examples: int, *, rank: int = 0, num_replicas: int = 1) -> None:
        super().__init__(range(num_examples), num_replicas=num_replicas, rank=rank, shuffle=False)  # type: ignore[arg-type]
        first = rank if rank < num_examples else rank % num_examples
        self.indices = range(first, num_examples, num_replicas)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)


def epoch_order(num_examples: int, *, seed: int, epoch: int) -> list[int]:
    """A permutation of ``range(num_examples)`` that depends on nothing but the arguments.

    Seed and epoch are hashed together: with their sum, epoch 1 of seed 0 would be epoch 0 of
    seed 1.
    """
    generator = _generator(seed, epoch)
    order: list[int] = torch.randperm(num_examples, generator=generator).tolist()
    return order


def _generator(*numbers: int) -> torch.Generator:
    digest = hashlib.sha256(" ".join(map(str, numbers)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
