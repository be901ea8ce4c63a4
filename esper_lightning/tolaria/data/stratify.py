"""Splitting examples so that every split has its share of each class."""

from typing import NamedTuple

import torch
from torch import Tensor

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_number, check_whole
from esper_lightning.tolaria.data.labelled import LabelledTensors


class Splits(NamedTuple):
    """Three disjoint sets of examples.

    Attributes:
        train: to learn from.
        val: what gates, rewards and policies may look at.
        test: what nothing looks at before the end.
    """

    train: LabelledTensors
    val: LabelledTensors
    test: LabelledTensors


def stratified_sample(
    labels: Tensor, num: int, *, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Choose ``num`` examples at random, each class in proportion.

    Every class gets its exact share rounded down; the examples still missing go to the classes with
    the largest remainders, so that a class is off by less than one example.

    Args:
        labels: ``(N,)`` class of each example.
        num: how many to choose, 0 to N.
        generator: the only source of randomness.

    Returns:
        Indices of the chosen and of the remaining examples, each in ascending order.

    Raises:
        InvalidArgument: there are fewer than ``num`` examples.
    """
    if not 0 <= num <= len(labels):
        raise InvalidArgument(f"cannot choose {num} of {len(labels)} examples")
    classes, counts = torch.unique(labels, return_counts=True)
    # Integers throughout: the remainders must not depend on rounding.
    shares = [int(count) * num // len(labels) for count in counts]
    remainders = [int(count) * num % len(labels) for count in counts]
    neediest = sorted(range(len(shares)), key=lambda index: -remainders[index])
    for index in neediest[: num - sum(shares)]:
        shares[index] += 1
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label, share in zip(classes, shares, strict=True):
        members = (labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        chosen[members[order[:share]]] = True
    return chosen.nonzero().flatten(), (~chosen).nonzero().flatten()


def three_way_split(
    examples: LabelledTensors,
    *,
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
    subset: int | None = None,
) -> Splits:
    """Split examples into train, val and test, stratified by class.

    The test split depends on ``test_fraction`` and ``split_seed`` only, the val split on these and
    ``val_fraction``: a smaller ``subset`` is measured on the same examples.

    Args:
        examples: all of them.
        val_fraction: share of all examples that becomes val, between 0 and 1.
        test_fraction: share of all examples that becomes test, between 0 and 1.
        split_seed: decides which example goes where.
        subset: keep only so many training examples.

    Raises:
        InvalidArgument: the fractions leave nothing to train on, or ``subset`` is more than there
            is.
    """
    check_number("val_fraction", val_fraction)
    check_number("test_fraction", test_fraction)
    check_whole("split_seed", split_seed)
    check_whole("subset", subset, or_none=True)
    if not (0 < val_fraction < 1 and 0 < test_fraction < 1 and val_fraction + test_fraction < 1):
        raise InvalidArgument(
            f"val_fraction and test_fraction must be above 0 and their sum below 1, got "
            f"{val_fraction} and {test_fraction}"
        )
    labels = examples.labels
    generator = torch.Generator().manual_seed(split_seed)
    test, rest = stratified_sample(labels, round(test_fraction * len(labels)), generator=generator)
    num_val = min(round(val_fraction * len(labels)), len(rest))
    remaining = examples.take(rest)
    train, val = _train_and_val(remaining, num_val=num_val, subset=subset, generator=generator)
    return Splits(train=train, val=val, test=examples.take(test))


def hold_out_val(
    examples: LabelledTensors,
    test: LabelledTensors,
    *,
    num_val: int,
    split_seed: int,
    subset: int | None = None,
) -> Splits:
    """Split the training examples of data whose test split is published, stratified by class.

    The val split depends on ``num_val`` and ``split_seed`` only: a smaller ``subset`` is measured
    on the same examples.

    Args:
        examples: all but those of test.
        test: the published test split.
        num_val: how many of ``examples`` become val.
        split_seed: decides which example goes where.
        subset: keep only so many of the others for training.

    Raises:
        InvalidArgument: ``num_val`` leaves nothing to train on, or ``subset`` is more than there
            is.
    """
    check_whole("num_val", num_val)
    check_whole("split_seed", split_seed)
    check_whole("subset", subset, or_none=True)
    if not 1 <= num_val < len(examples):
        raise InvalidArgument(
            f"num_val must be at least 1 and below the {len(examples)} examples that train and val "
            f"share, got {num_val}"
        )
    generator = torch.Generator().manual_seed(split_seed)
    train, val = _train_and_val(examples, num_val=num_val, subset=subset, generator=generator)
    return Splits(train=train, val=val, test=test)


def _train_and_val(
    examples: LabelledTensors, *, num_val: int, subset: int | None, generator: torch.Generator
) -> tuple[LabelledTensors, LabelledTensors]:
    labels = examples.labels
    val, train = stratified_sample(labels, num_val, generator=generator)
    if subset is not None:
        if not 1 <= subset <= len(train):
            raise InvalidArgument(
                f"subset must be between 1 and the {len(train)} training examples, got {subset}"
            )
        kept, _ = stratified_sample(labels[train], subset, generator=generator)
        train = train[kept]
    return examples.take(train), examples.take(val)
