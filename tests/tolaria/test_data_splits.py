import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esper_lightning.leyline import InvalidArgument
from esper_lightning.tolaria.data import (
    Digits,
    LabelledTensors,
    SplitDataModule,
    Splits,
    TensorDataModule,
    stratified_sample,
    three_way_split,
)


def numbered(num: int, num_classes: int = 3) -> LabelledTensors:
    """Examples whose input is their own number."""
    return LabelledTensors(
        torch.arange(num).float().reshape(-1, 1), torch.arange(num) % num_classes
    )


def numbers(examples: LabelledTensors) -> list[int]:
    return examples.inputs.flatten().int().tolist()


def pair(num: int, num_classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(num, 2), torch.arange(num) % num_classes


def drain(data: SplitDataModule) -> list[list[torch.Tensor]]:
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    return [[inputs for inputs, _ in loader] for loader in loaders]


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_a_sample_is_exact_in_number_and_within_one_example_of_each_class_share(
    counts, share, seed
):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    num = round(share * len(labels))
    chosen, rest = stratified_sample(labels, num, generator=torch.Generator().manual_seed(seed))
    assert len(chosen) == num
    assert sorted(chosen.tolist() + rest.tolist()) == list(range(len(labels)))
    for label, count in enumerate(counts):
        taken = int((labels[chosen] == label).sum())
        assert abs(taken - count * num / max(1, len(labels))) < 1


def test_too_large_a_sample_is_refused():
    with pytest.raises(InvalidArgument, match="cannot choose 4 of 3 examples"):
        stratified_sample(torch.zeros(3), 4, generator=torch.Generator())


@settings(deadline=None)
@given(num=st.integers(30, 90), split_seed=st.integers(0, 99))
def test_splits_are_disjoint_and_complete(num, split_seed):
    splits = three_way_split(
        numbered(num), val_fraction=0.2, test_fraction=0.3, split_seed=split_seed
    )
    together = [number for examples in splits for number in numbers(examples)]
    assert sorted(together) == list(range(num))
    assert (len(splits.val), len(splits.test)) == (round(0.2 * num), round(0.3 * num))


def test_the_test_split_does_not_depend_on_the_other_sizes():
    def split(**changes):
        arguments = {"val_fraction": 0.2, "test_fraction": 0.2, "split_seed": 5, **changes}
        return three_way_split(numbered(90), **arguments)

    plain = split()
    assert numbers(split(val_fraction=0.4).test) == numbers(plain.test)
    small = split(subset=20)
    assert numbers(small.test) == numbers(plain.test)
    assert numbers(small.val) == numbers(plain.val)
    assert len(small.train) == 20
    assert set(numbers(small.train)) < set(numbers(plain.train))
    assert numbers(split(split_seed=6).test) != numbers(plain.test)


@pytest.mark.parametrize("fractions", [(0.0, 0.2), (0.2, 0.0), (0.5, 0.5), (-0.1, 0.2)])
def test_fractions_must_leave_something_to_train_on(fractions):
    with pytest.raises(InvalidArgument, match="above 0 and their sum below 1"):
        three_way_split(
            numbered(9), val_fraction=fractions[0], test_fraction=fractions[1], split_seed=0
        )


@pytest.mark.parametrize("subset", [0, 1000])
def test_a_subset_that_is_not_there_is_refused(subset):
    with pytest.raises(InvalidArgument, match=f"between 1 and the 5 training .* got {subset}"):
        three_way_split(
            numbered(9), val_fraction=0.2, test_fraction=0.2, split_seed=0, subset=subset
        )


def test_digits_are_split_the_same_whatever_the_seed_of_the_run():
    torch.manual_seed(1)
    one = Digits(seed=1).splits
    torch.manual_seed(2)
    two = Digits(seed=2).splits
    for ours, theirs in zip(one, two, strict=True):
        assert torch.equal(ours.inputs, theirs.inputs)
        assert torch.equal(ours.labels, theirs.labels)
    assert not torch.equal(one.test.inputs, Digits(split_seed=1).splits.test.inputs)


def test_digits_are_what_they_say():
    data = Digits(subset=300)
    data.setup("fit")
    train, val, test = data.splits
    assert [len(train), len(val), len(test)] == [300, 359, 359]
    assert train.inputs.shape[1:] == data.input_shape == (1, 8, 8)
    assert (train.inputs.min(), train.inputs.max()) == (0, 1)
    for examples in data.splits:
        shares = torch.bincount(examples.labels, minlength=10) / len(examples)
        assert (shares - 0.1).abs().max() < 0.01
    assert torch.equal(data.example_input(5), train.inputs[:5])
    assert data.example_input().shape == (8, 1, 8, 8)


def test_training_order_depends_on_seed_and_epoch_only_and_covers_every_example():
    train, val, test = numbered(70), pair(7), pair(7)

    def epoch(seed, number):
        module = TensorDataModule(
            train=(train.inputs, train.labels),
            val=(val[0][:, :1], val[1]),
            test=(test[0][:, :1], test[1]),
            seed=seed,
        )
        loader = module.train_dataloader()
        loader.sampler.set_epoch(number)
        return torch.cat([inputs for inputs, _ in loader]).flatten().int().tolist()

    assert epoch(0, 0) == epoch(0, 0)
    assert sorted(epoch(0, 0)) == list(range(70))
    assert epoch(0, 0) != epoch(0, 1)
    assert epoch(0, 0) != epoch(1, 0)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loaders_leave_the_global_generator_alone(num_workers):
    data = TensorDataModule(
        train=pair(70), val=pair(9), test=pair(9), num_workers=num_workers, batch_size=32
    )
    before = torch.get_rng_state()
    data.setup("fit")
    drain(data)
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_give_the_same_batches():
    splits = {"train": pair(70), "val": pair(9), "test": pair(9)}
    alone, helped = (drain(TensorDataModule(**splits, num_workers=num)) for num in (0, 1))
    for ours, theirs in zip(alone, helped, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_evaluation_is_in_order_and_in_large_batches():
    data = TensorDataModule(train=pair(70), val=pair(300), test=pair(9), batch_size=8)
    _, val, test = drain(data)
    assert [len(batch) for batch in val] == [256, 44]
    assert torch.equal(torch.cat(val), data.splits.val.inputs)
    assert torch.equal(torch.cat(test), data.splits.test.inputs)


def test_a_batch_is_the_examples_one_by_one():
    examples = numbered(10)
    inputs, labels = examples.__getitems__([7, 2])
    assert torch.equal(inputs, torch.stack([examples[7][0], examples[2][0]]))
    assert labels.tolist() == [1, 2]


def test_a_data_module_travels_to_another_process():
    data = TensorDataModule(train=pair(20), val=pair(9), test=pair(9))
    there = pickle.loads(pickle.dumps(data))
    assert torch.equal(there.splits.train.inputs, data.splits.train.inputs)


def broken(**changes):
    good = {"inputs": torch.rand(6, 2), "labels": torch.arange(6) % 3}
    return {**good, **changes}


NOT_FINITE = torch.rand(6, 2)
NOT_FINITE[[2, 5], 1] = torch.tensor([float("nan"), float("inf")])


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": NOT_FINITE}, "2 of 6 inputs are not finite, the first at index 2; drop"),
        ({"inputs": torch.rand(6, 2).double()}, r"float64, expected torch.float32; .*\.float\(\)"),
        ({"inputs": torch.zeros(6, 2).long()}, "inputs are torch.int64"),
        ({"inputs": torch.rand(6)}, r"inputs have shape \(6,\); expected \(N, 2\)"),
        ({"inputs": torch.rand(6, 3)}, r"inputs have shape \(6, 3\); expected \(N, 2\)"),
        ({"inputs": torch.rand(5, 2)}, "5 inputs but 6 labels"),
        ({"labels": torch.rand(6)}, "labels are torch.float32"),
        ({"labels": torch.zeros(6, 1).long()}, r"of shape \(6, 1\)"),
        ({"labels": torch.tensor([0, 1, 2, 3, 4, 0])}, "2 of 6 labels .* index 3 is 3; .* 0 to 2"),
        ({"labels": torch.tensor([0, -1, 2, 0, 1, 2])}, "1 of 6 labels .* index 1 is -1"),
        ({"inputs": torch.rand(0, 2), "labels": torch.zeros(0).long()}, "no examples"),
    ],
)
def test_every_split_is_checked(split, changes, message):
    class Given(SplitDataModule):
        def load(self):
            splits = {name: broken() for name in ("train", "val", "test")}
            splits[split] = broken(**changes)
            return Splits(**{name: LabelledTensors(**it) for name, it in splits.items()})

    data = Given(name="toy", input_shape=(2,), num_classes=3, batch_size=2, seed=0, num_workers=0)
    with pytest.raises(InvalidArgument, match=f"toy {split}: .*{message}"):
        data.setup("fit")


def test_classes_of_own_tensors_are_counted_in_train_and_labels_beyond_are_refused():
    data = TensorDataModule(train=pair(20), val=pair(9), test=pair(9))
    assert (data.num_classes, data.input_shape, data.name) == (3, (2,), "tensors")
    unseen = TensorDataModule(train=pair(20), val=pair(9), test=pair(9, num_classes=4))
    with pytest.raises(InvalidArgument, match=r"tensors test: .* labels are out of range"):
        unseen.setup("fit")
    assert (
        TensorDataModule(train=pair(9), val=pair(9), test=pair(9), num_classes=7).num_classes == 7
    )


def test_one_tensor_in_two_splits_is_refused_and_slices_of_one_are_not():
    inputs, labels = pair(30)
    with pytest.raises(InvalidArgument, match="val and test are the same inputs"):
        TensorDataModule(train=pair(9), val=(inputs, labels), test=(inputs, labels))
    parts = {
        "train": (inputs[:10], labels[:10]),
        "val": (inputs[10:20], labels[10:20]),
        "test": (inputs[20:], labels[20:]),
    }
    TensorDataModule(**parts).setup("fit")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"num_workers": -1}, "num_workers must be a whole number of at least 0, got -1"),
        ({"num_classes": 1}, "num_classes must be a whole number of at least 2, got 1"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        TensorDataModule(train=pair(9), val=pair(9), test=pair(9), **arguments)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_takes_no_index_before_its_first_batch(num_workers):
    train, val, test = numbered(40), numbered(9), numbered(9)
    data = TensorDataModule(
        train=(train.inputs, train.labels),
        val=(val.inputs, val.labels),
        test=(test.inputs, test.labels),
        num_workers=num_workers,
    )
    loader = data.train_dataloader()
    early = iter(loader)
    loader.sampler.set_epoch(3)
    seen = torch.cat([inputs for inputs, _ in early]).flatten().int().tolist()
    assert seen == list(loader.sampler)


def test_digits_may_be_fewer_and_labels_wrong():
    few = Digits(classes=[8, 3, 5])
    whole = Digits().splits
    assert few.num_classes == 3
    assert [set(part.labels.tolist()) for part in few.splits] == [{0, 1, 2}] * 3
    threes = sum((part.labels == 3).sum() for part in whole)
    assert sum((part.labels == 1).sum() for part in few.splits) == threes
    noisy = Digits(label_noise=0.5).splits
    changed = (noisy.train.labels != whole.train.labels).float().mean()
    assert 0.35 < changed < 0.55, "a tenth of those drawn anew is right by chance"
    assert torch.equal(noisy.train.inputs, whole.train.inputs)
    assert torch.equal(noisy.val.labels, whole.val.labels)
    assert torch.equal(noisy.test.labels, whole.test.labels)
    assert torch.equal(Digits(label_noise=0.5, seed=3).splits.train.labels, noisy.train.labels)


@pytest.mark.parametrize(
    "options",
    [{"classes": [3]}, {"classes": [3, 3]}, {"classes": [3, 10]}, {"label_noise": 1.5}],
)
def test_digits_that_are_none_are_refused(options):
    with pytest.raises(InvalidArgument, match="digits: "):
        Digits(**options)
