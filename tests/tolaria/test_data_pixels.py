import pytest
import torch

from esper_lightning.leyline import InvalidArgument
from esper_lightning.tolaria.data import LabelledPixels

EVERY_BYTE = torch.arange(256, dtype=torch.uint8).reshape(16, 1, 4, 4)


def pixels(inputs=EVERY_BYTE, *, mean=0.25, std=0.5):
    return LabelledPixels(inputs, torch.arange(len(inputs)) % 10, mean=mean, std=std)


def test_every_byte_comes_out_as_the_formula_says_and_is_stored_as_it_was():
    examples = pixels()
    inputs, labels = examples.__getitems__(range(16))
    expected = ((EVERY_BYTE.double() / 255 - 0.25) / 0.5).float()
    torch.testing.assert_close(inputs, expected, rtol=0, atol=1e-6)
    assert labels.tolist() == [i % 10 for i in range(16)]
    assert torch.equal(examples.inputs, EVERY_BYTE)
    examples.__getitems__([0])[0].add_(1)
    assert torch.equal(examples.inputs, EVERY_BYTE)


def test_an_example_has_the_same_bits_in_every_batch():
    examples = pixels()
    together = examples.__getitems__([3, 9, 1])[0]
    assert torch.equal(together[1], examples[9][0])
    assert torch.equal(together, examples.take(torch.tensor([3, 9, 1])).__getitems__([0, 1, 2])[0])


def test_statistics_of_the_pixels_give_zero_mean_and_unit_variance():
    share = EVERY_BYTE.double() / 255
    examples = pixels(mean=float(share.mean()), std=float(share.std(unbiased=False)))
    inputs = examples.__getitems__(range(16))[0].double()
    assert abs(inputs.mean()) < 1e-6
    assert abs(inputs.std(unbiased=False) - 1) < 1e-6


def test_pixels_that_are_not_bytes_are_refused():
    with pytest.raises(InvalidArgument, match=r"toy: pixels are torch.float32, expected .*uint8"):
        pixels(EVERY_BYTE.float()).check(what="toy", input_shape=(1, 4, 4), num_classes=10)
    pixels().check(what="toy", input_shape=(1, 4, 4), num_classes=10)


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan")])
def test_a_scale_that_divides_by_nothing_is_refused(std):
    with pytest.raises(InvalidArgument, match="std of pixels must be above 0"):
        pixels(std=std)


def test_each_channel_has_its_own_mean_and_deviation():
    inputs = torch.arange(256, dtype=torch.uint8).reshape(8, 2, 4, 4)
    mean, std = (0.25, 0.75), (0.5, 0.125)
    together = pixels(inputs, mean=mean, std=std).__getitems__(range(8))[0]
    for channel in range(2):
        alone = pixels(inputs[:, [channel]], mean=mean[channel], std=std[channel])
        assert torch.equal(together[:, [channel]], alone.__getitems__(range(8))[0])


@pytest.mark.parametrize(
    ("mean", "std"), [((0.1, 0.2), (0.3, 0.4)), (0.1, (0.3,) * 3), ((0.1,) * 3, 0.2), ((), ())]
)
def test_statistics_of_another_number_of_channels_are_refused(mean, std):
    with pytest.raises(InvalidArgument, match=r"one for each channel, got .* shape \(3, 2, 2\)"):
        pixels(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), mean=mean, std=std)


def test_a_deviation_of_nothing_in_one_channel_is_refused():
    with pytest.raises(InvalidArgument, match="std of pixels must be above 0"):
        pixels(torch.zeros(4, 2, 2, 2, dtype=torch.uint8), mean=(0.1, 0.2), std=(0.3, 0.0))
