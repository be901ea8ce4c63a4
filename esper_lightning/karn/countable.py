"""A branch whose cost and fit are known before it is built."""

from typing import Any, NamedTuple

from esper_lightning.kasmina.branch import Branch
from esper_lightning.leyline import Attachment, FeatureKind, FeatureMap, SlotShape


class Cost(NamedTuple):
    """What a branch costs.

    Attributes:
        parameters: number of trainable scalars.
        flops: of one sample's forward pass: 2 for every multiply-add of a convolution or matrix
            product, those inside attention included. Everything elementwise (activations, norms,
            scales, pooling) counts 0, as in ``torch.utils.flop_counter``.
    """

    parameters: int
    flops: int


class CountableBranch(Branch):
    """A branch with a formula for its cost.

    A subclass has the constructor ``__init__(self, shape, *, ...)``, and :meth:`cost` takes the
    same arguments, so that a query can budget hundreds of candidates without building one of them.
    """

    @classmethod
    def cost(cls, shape: SlotShape, /, *args: Any, **parameters: Any) -> Cost:
        """The cost of the branch that the constructor would build from the same arguments."""
        raise NotImplementedError(f"{cls.__name__} must define cost")

    @classmethod
    def reads(cls, shape: SlotShape) -> FeatureMap:
        """The feature map that the branch is given: the slot's output in series, else its input."""
        return shape.output if cls.attachment is Attachment.SERIES else shape.input

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """Whether the branch can connect ``shape``, whose kind is already known to suit.

        In series always. In parallel when the feature map keeps its number of tokens and does not
        grow in height or width.
        """
        before, after = cls.reads(shape), shape.output
        if after.kind is FeatureKind.TOKENS:
            return before.num_positions == after.num_positions
        return all(
            size_in >= size_out
            for size_in, size_out in zip(before.height_width, after.height_width, strict=True)
        )
