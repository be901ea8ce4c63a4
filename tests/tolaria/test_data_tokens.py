"""Token ids as examples, and windows of one text."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esper_lightning.leyline import InvalidArgument
from esper_lightning.tolaria.data import (
    LabelledIds,
    LabelledTensors,
    SplitDataModule,
    Splits,
    TensorDataModule,
    TextWindows,
)


@settings(deadline=None)
@given(
    num=st.integers(2, 60), context=st.integers(1, 20), stride=st.integers(1, 20), data=st.data()
)
def test_an_example_is_a_window_and_what_comes_next(num, context, stride, data):
    if num <= context:
        with pytest.raises(InvalidArgument, match=f"{num} characters are too few for a window of"):
            TextWindows(torch.arange(num), context=context, stride=stride, num_tokens=num)
        return
    windows = TextWindows(torch.arange(num), context=context, stride=stride, num_tokens=num)
    chosen = data.draw(st.lists(st.integers(0, len(windows) - 1), min_size=1, max_size=5))
    inputs, labels = windows.__getitems__(chosen)
    assert inputs.shape == labels.shape == (len(chosen), context)
    for index, row in zip(chosen, inputs, strict=True):
        assert row.tolist() == list(range(index * stride, index * stride + context))
    assert torch.equal(labels, inputs + 1)
    assert (len(windows) - 1) * stride + context < num <= len(windows) * stride + context


def test_windows_share_the_memory_of_the_text():
    ids = torch.zeros(1000, dtype=torch.int64)
    windows = TextWindows(ids, context=64, stride=1, num_tokens=2)
    ids[70] = 1
    assert windows[70][0][0] == windows[69][1][0] == windows[7][0][63] == 1


def test_chosen_examples_are_still_ids():
    windows = TextWindows(torch.arange(9), context=2, stride=1, num_tokens=9)
    some = windows.take(torch.tensor([5, 1]))
    some.check(what="some", input_shape=(2,), num_classes=9, label_shape=(2,))
    assert some.inputs.tolist() == [[5, 6], [1, 2]]


def check(examples: LabelledTensors, **changes) -> None:
    options = {"input_shape": (2,), "num_classes": 3, "label_shape": (2,), **changes}
    examples.check(what="toy train", **options)


def labelled(inputs: torch.Tensor, labels: torch.Tensor) -> LabelledIds:
    return LabelledIds(inputs, labels, num_tokens=3)


GOOD = torch.tensor([[0, 1], [2, 0], [1, 1]])


@pytest.mark.parametrize(
    ("examples", "changes", "message"),
    [
        (labelled(GOOD.float(), GOOD), {}, "token ids are torch.float32, expected torch.int64"),
        (labelled(GOOD.int(), GOOD), {}, "token ids are torch.int32"),
        (labelled(GOOD + 1, GOOD), {}, "1 of 6 token ids are out of range, the first is 3; .* 2"),
        (labelled(GOOD - 1, GOOD), {}, "2 of 6 token ids are out of range, the first is -1"),
        (labelled(GOOD, GOOD + 1), {}, r"1 of 6 labels .* index \(1, 0\) is 3; allowed are 0 to 2"),
        (labelled(GOOD, GOOD[:, 0]), {}, r"shape \(3,\); expected torch.int64 of shape \(N, 2\)"),
        (labelled(GOOD, GOOD), {"label_shape": ()}, r"of shape \(N,\), one class index"),
        (labelled(GOOD, GOOD), {"label_shape": (3,)}, r"of shape \(N, 3\)"),
        (
            TextWindows(torch.arange(5), context=2, stride=1, num_tokens=4),
            {"num_classes": 5},
            "1 of 5 token ids are out of range, the first is 4",
        ),
        (
            TextWindows(torch.arange(5), context=2, stride=1, num_tokens=5),
            {"num_classes": 4},
            "1 of 5 token ids are out of range, the first is 4; allowed are 0 to 3",
        ),
    ],
)
def test_what_is_not_fit_is_refused(examples, changes, message):
    check(labelled(GOOD, GOOD))
    with pytest.raises(InvalidArgument, match=f"toy train: .*{message}"):
        check(examples, **changes)


def test_own_tensors_may_have_a_label_for_each_position():
    def part(num: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.rand(num, 4, 2), torch.arange(num * 4).reshape(num, 4) % 3

    data = TensorDataModule(train=part(9), val=part(3), test=part(3))
    data.setup("fit")
    assert (data.num_classes, data.label_shape) == (3, (4,))
    inputs, labels = next(iter(data.train_dataloader()))
    assert (inputs.shape, labels.shape) == ((9, 4, 2), (9, 4))
    other = TensorDataModule(train=part(9), val=(part(3)[0], torch.zeros(3).long()), test=part(3))
    with pytest.raises(InvalidArgument, match=r"tensors val: labels .* expected .* \(N, 4\)"):
        other.setup("fit")


def test_a_number_of_classes_that_nobody_tells_is_asked_for():
    class Forgetful(SplitDataModule):
        def load(self) -> Splits:
            raise AssertionError

    data = Forgetful(
        name="toy", input_shape=(1,), num_classes=None, batch_size=1, seed=0, num_workers=0
    )
    with pytest.raises(NotImplementedError, match="Forgetful must define num_classes"):
        _ = data.num_classes
