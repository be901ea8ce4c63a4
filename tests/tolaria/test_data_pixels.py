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
