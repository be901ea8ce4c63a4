"""Operations counted as one would by hand, and a count that changes nothing of what it counts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from esper_lightning.kasmina import FlopCount, FlopMeter


def counted(forward: Callable[..., Tensor], *inputs: Tensor) -> tuple[int, int]:
    """Operations of a forward pass, and of the backward pass that follows."""
    with FlopCount() as count:
        output = forward(*inputs)
        first = count.total
        if output.requires_grad:
            output.sum().backward()
    return first, count.total - first


def wants(*shape: int, gradient: bool = True) -> Tensor:
    return torch.randn(*shape, requires_grad=gradient)


def no_weight_gradients(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False)


# -- matrix products --------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [(6,), (2, 3)], ids=str)
def test_a_linear_layer(rows: tuple[int, ...], bias: bool) -> None:
    """Each of output, weight gradient and input gradient: 6 rows x 8 in x 4 out, times 2."""
    product = 2 * 6 * 8 * 4
    layer = nn.Linear(8, 4, bias=bias)
    assert counted(layer, wants(*rows, 8)) == (product, 2 * product)
    assert counted(layer, wants(*rows, 8, gradient=False)) == (product, product)
    assert counted(no_weight_gradients(layer), wants(*rows, 8)) == (product, product)
    assert counted(no_weight_gradients(layer), wants(*rows, 8, gradient=False)) == (product, 0)


def test_matrix_products() -> None:
    product = 2 * 3 * 4 * 5
    assert counted(torch.matmul, wants(3, 4), wants(4, 5)) == (product, 2 * product)
    assert counted(torch.matmul, wants(3, 4), wants(4, 5, gradient=False)) == (product, product)
    batched = 7 * product
    assert counted(torch.bmm, wants(7, 3, 4), wants(7, 4, 5)) == (batched, 2 * batched)
    assert counted(torch.matmul, wants(7, 3, 4), wants(7, 4, 5)) == (batched, 2 * batched)


def test_an_einsum_and_an_addition_of_a_product() -> None:
    product = 7 * 2 * 3 * 4 * 5

    def einsum(a: Tensor, b: Tensor) -> Tensor:
        return torch.einsum("bij,bjk->bik", a, b)

    assert counted(einsum, wants(7, 3, 4), wants(7, 4, 5)) == (product, 2 * product)
    added = counted(torch.baddbmm, wants(7, 3, 5), wants(7, 3, 4), wants(7, 4, 5))
    assert added == (product, 2 * product)


def test_a_product_that_is_added_to_something() -> None:
    product = 2 * 3 * 4 * 5
    added = counted(torch.addmm, wants(3, 5), wants(3, 4), wants(4, 5))
    assert added == (product, 2 * product)
    assert counted(F.linear, wants(3, 4), wants(5, 4)) == (product, 2 * product)


def test_an_einsum_over_two_axes_at_once() -> None:
    """Each of 2 x 3 results is a sum over 4 x 5 terms."""

    def einsum(a: Tensor, b: Tensor) -> Tensor:
        return torch.einsum("ikl,jkl->ij", a, b)

    product = 2 * 2 * 3 * 4 * 5
    assert counted(einsum, wants(2, 4, 5), wants(3, 4, 5)) == (product, 2 * product)


def test_an_embedding_costs_nothing() -> None:
    table = nn.Embedding(10, 4)
    assert counted(table, torch.tensor([[1, 2], [3, 3]])) == (0, 0)


def test_what_is_no_product_costs_nothing() -> None:
    module = nn.Sequential(nn.ReLU(), nn.LayerNorm(4), nn.Dropout(0.1), nn.Softmax(-1))
    assert counted(module, wants(3, 4)) == (0, 0)


# -- convolutions -----------------------------------------------------------------------------

IMAGE = (2, 4, 9, 7)


@pytest.mark.parametrize(
    ("options", "output_pixels", "channels_per_group"),
    [
        ({"kernel_size": 3}, 7 * 5, 4),
        ({"kernel_size": 3, "padding": 1}, 9 * 7, 4),
        ({"kernel_size": 3, "padding": 1, "stride": 2}, 5 * 4, 4),
        ({"kernel_size": 3, "dilation": 2}, 5 * 3, 4),
        ({"kernel_size": 3, "padding": 1, "groups": 2}, 9 * 7, 2),
        ({"kernel_size": 3, "padding": 1, "groups": 4}, 9 * 7, 1),
        ({"kernel_size": 3, "padding": 2, "dilation": 2, "groups": 4, "stride": 2}, 5 * 4, 1),
        ({"kernel_size": 1}, 9 * 7, 4),
    ],
    ids=["plain", "padding", "stride", "dilation", "groups", "depthwise", "all", "pointwise"],
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution(
    options: dict[str, Any], output_pixels: int, channels_per_group: int, bias: bool
) -> None:
    """Every output value is a product over the kernel and the channels of its group."""
    layer = nn.Conv2d(4, 8, bias=bias, **options)
    taps = options["kernel_size"] ** 2 * channels_per_group
    product = 2 * 2 * 8 * output_pixels * taps
    assert counted(layer, wants(*IMAGE)) == (product, 2 * product)
    assert counted(layer, wants(*IMAGE, gradient=False)) == (product, product)
    assert counted(no_weight_gradients(layer), wants(*IMAGE)) == (product, product)


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"groups": 2}, {"groups": 4}])
def test_a_transposed_convolution(options: dict[str, int]) -> None:
    """Every input value meets the whole kernel, for the output channels of its group."""
    layer = nn.ConvTranspose2d(
        4, 8, 3, stride=options.get("stride", 1), groups=options.get("groups", 1)
    )
    product = 2 * 2 * 4 * (9 * 7) * 9 * (8 // options.get("groups", 1))
    assert counted(layer, wants(*IMAGE)) == (product, 2 * product)
    assert counted(layer, wants(*IMAGE, gradient=False)) == (product, product)


def test_a_convolution_over_a_sequence() -> None:
    layer = nn.Conv1d(4, 6, 5, padding=2, groups=2)
    product = 2 * 3 * 6 * 10 * 5 * 2
    assert counted(layer, wants(3, 4, 10)) == (product, 2 * product)


def test_a_convolution_over_a_volume() -> None:
    layer = nn.Conv3d(2, 4, 3, padding=1, stride=2)
    product = 2 * 2 * 4 * (3 * 2 * 2) * 27 * 2
    assert counted(layer, wants(2, 2, 5, 4, 3)) == (product, 2 * product)


def test_a_transposed_convolution_over_a_sequence() -> None:
    layer = nn.ConvTranspose1d(4, 6, 5, stride=2)
    product = 2 * 3 * 4 * 10 * 5 * 6
    assert counted(layer, wants(3, 4, 10)) == (product, 2 * product)


# -- attention --------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
def test_attention_on_the_cpu(causal: bool) -> None:
    """2 x 3 heads, 5 queries, 7 keys, 4 features.

    Forward the scores and the values; backward the scores again, and a product for each of the
    gradients of values, weights, queries and keys.
    """
    product = 2 * 3 * 2 * 5 * 7 * 4

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    inputs = (wants(2, 3, 5, 4), wants(2, 3, 7, 4), wants(2, 3, 7, 4))
    assert counted(attention, *inputs) == (2 * product, 5 * product)
    frozen = [tensor.detach() for tensor in inputs]
    assert counted(attention, *frozen) == (2 * product, 0)


def test_attention_that_is_computed_step_by_step() -> None:
    """With dropout the kernel is not fused: no recomputation."""
    product = 2 * 3 * 2 * 5 * 7 * 4

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=0.1)

    inputs = (wants(2, 3, 5, 4), wants(2, 3, 7, 4), wants(2, 3, 7, 4))
    assert counted(attention, *inputs) == (2 * product, 4 * product)


def test_a_second_pass_is_counted_too() -> None:
    layer = nn.Linear(8, 4)
    once = counted(layer, wants(6, 8))
    twice = counted(lambda x: layer(x) + layer(x), wants(6, 8))
    assert twice == (2 * once[0], 2 * once[1])


def test_a_pass_that_is_run_again_for_its_gradients_is_counted_again() -> None:
    """Checkpointing runs the first layer twice; nobody needs the second layer's output again."""
    layers = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 5))
    first, second = 2 * 6 * 8 * 4, 2 * 6 * 4 * 5

    def again(x: Tensor) -> Tensor:
        output: Tensor = checkpoint(layers, x, use_reentrant=False)
        return output

    forward, backward = counted(again, wants(6, 8))
    assert forward == first + second
    assert backward == first + 2 * (first + second)


def test_gradients_that_accumulate_are_counted_each_time() -> None:
    layer = nn.Linear(8, 4)
    with FlopCount() as count:
        for _ in range(3):
            layer(wants(6, 8, gradient=False)).sum().backward()
    assert count.total == 3 * 2 * (2 * 6 * 8 * 4)


# -- nothing of what runs is changed ----------------------------------------------------------


class Mixed(nn.Module):
    """A little of everything that is counted, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.3)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu_(self.norm(self.up(self.depthwise(x))))
        tokens = self.dropout(h.flatten(2).transpose(1, 2))
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        logits: Tensor = self.head(tokens.mean(1))
        return logits


def step(*, counting: bool) -> list[Tensor]:
    torch.manual_seed(0)
    model = Mixed()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    x, y = torch.randn(5, 4, 4, 4), torch.tensor([0, 1, 2, 0, 1])
    traces: list[Tensor] = []
    for _ in range(2):
        meter = FlopMeter()
        if counting:
            meter.begin("one")
        logits = model(x)
        optimizer.zero_grad()
        F.cross_entropy(logits, y).backward()
        optimizer.step()
        if counting:
            meter.backward()
            meter.end("one", 5)
        traces += [logits.detach(), torch.get_rng_state()]
        traces += [p.grad.clone() for p in model.parameters() if p.grad is not None]
        traces += [value.clone() for value in model.state_dict().values()]
    return traces


def test_a_counted_step_is_bit_identical() -> None:
    counting, plain = step(counting=True), step(counting=False)
    assert all(torch.equal(a, b) for a, b in zip(counting, plain, strict=True))


# -- the meter of a run -----------------------------------------------------------------------

LAYER_FLOPS = 2 * 2 * 8 * 4
"""Per sample: forward and weight gradient of a layer from 8 to 4."""


def train_step(layer: nn.Module, batch_size: int) -> None:
    layer(torch.randn(batch_size, 8)).sum().backward()


def metered(meter: FlopMeter, topology: str, batch_size: int, layer: nn.Module) -> None:
    meter.begin(topology)
    train_step(layer, batch_size)
    meter.backward()
    meter.end(topology, batch_size)


def test_a_run_is_the_sum_of_its_samples() -> None:
    meter, layer = FlopMeter(), nn.Linear(8, 4)
    assert meter.per_sample("host") is None
    for batch_size in (6, 6, 2):
        metered(meter, "host", batch_size, layer)
    assert meter.per_sample("host") == LAYER_FLOPS
    assert meter.total == 14 * LAYER_FLOPS


def test_only_the_first_step_of_a_topology_is_counted() -> None:
    meter, layer = FlopMeter(), nn.Linear(8, 4)
    metered(meter, "host", 6, layer)
    meter.begin("host")
    train_step(layer, 100)
    meter.backward()
    meter.end("host", 6)
    assert meter.total == 12 * LAYER_FLOPS
    meter.begin("grown")
    train_step(layer, 3)
    train_step(layer, 3)
    meter.backward()
    meter.end("grown", 3)
    assert meter.per_sample("grown") == 2 * LAYER_FLOPS
    assert meter.per_sample("host") == LAYER_FLOPS
    assert meter.total == 12 * LAYER_FLOPS + 3 * 2 * LAYER_FLOPS


def test_what_is_done_between_steps_is_not_counted() -> None:
    meter, layer = FlopMeter(), nn.Linear(8, 4)
    metered(meter, "host", 6, layer)
    train_step(layer, 100)
    metered(meter, "grown", 6, layer)
    assert meter.total == 12 * LAYER_FLOPS


def test_a_failed_step_is_aborted_and_counted_when_it_is_tried_again() -> None:
    meter, layer = FlopMeter(), nn.Linear(8, 4)
    with FlopCount() as outside:
        meter.begin("host")
        train_step(layer, 6)
        meter.abort()
        train_step(layer, 6)
    assert outside.total == 12 * LAYER_FLOPS
    assert meter.per_sample("host") is None
    assert meter.total == 0.0
    meter.abort()
    metered(meter, "host", 6, layer)
    assert meter.total == 6 * LAYER_FLOPS


def test_a_step_without_a_backward_pass_is_no_step() -> None:
    meter, layer = FlopMeter(), nn.Linear(8, 4)
    meter.begin("host")
    layer(torch.randn(6, 8))
    meter.end("host", 6)
    assert meter.per_sample("host") is None
    metered(meter, "host", 6, layer)
    meter.begin("host")
    meter.end("host", 6)
    assert meter.total == 6 * LAYER_FLOPS


def test_nothing_listens_any_more_after_an_abort() -> None:
    meter = FlopMeter()
    meter.begin("host")
    counting = meter._counting
    assert counting is not None
    meter.abort()
    train_step(nn.Linear(8, 4), 6)
    assert counting.total == 0


def test_a_meter_continues_and_counts_the_cost_of_a_step_again() -> None:
    meter, layer = FlopMeter(), nn.Linear(8, 4)
    metered(meter, "host", 6, layer)
    again = FlopMeter()
    again.load_state_dict(meter.state_dict())
    assert again.total == meter.total
    assert again.per_sample("host") is None
    metered(again, "host", 2, layer)
    assert again.total == 8 * LAYER_FLOPS


def test_a_topology_whose_cost_is_remembered_is_not_counted_again() -> None:
    meter, layer = FlopMeter(), nn.Linear(8, 4)
    meter.remember("host", 10.0)
    assert meter.total == 0.0
    metered(meter, "host", 3, layer)
    assert meter.per_sample("host") == 10.0
    assert meter.total == 30.0
