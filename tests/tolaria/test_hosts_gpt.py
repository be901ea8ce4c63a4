"""The transformer host: shapes, causality, counts, errors, and what grows in it."""

import math

import pytest
import torch
import torch.nn.functional as F
from grown_networks import fossil, imported, same, slots_of
from launching import composed
from torch import nn

from esper_lightning import karn
from esper_lightning.conf.instantiate import build
from esper_lightning.kasmina import FlopCount, possible_slots, save_program, save_source
from esper_lightning.leyline import InvalidArgument
from esper_lightning.tolaria import GPT
from esper_lightning.tolaria.hosts import CausalSelfAttention, FeedForward, TransformerBlock

T, V = 12, 7


def host(**changes) -> GPT:
    torch.manual_seed(0)
    options = {"input_shape": (T,), "num_classes": V, "width": 8, "num_heads": 2, **changes}
    return GPT(**options)


def ids(rows: int = 3, length: int = T) -> torch.Tensor:
    return torch.randint(0, V, (rows, length), generator=torch.Generator().manual_seed(1))


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("length", [T, 5, 1])
def test_ids_of_any_length_up_to_the_context_become_logits(length):
    assert host()(ids(3, length)).shape == (3, length, V)


def assert_causal(model: nn.Module) -> None:
    x = ids()
    before = model(x)
    for first in range(1, T):
        changed = x.clone()
        changed[:, first:] = (changed[:, first:] + 1) % V
        after = model(changed)
        torch.testing.assert_close(after[:, :first], before[:, :first], rtol=0, atol=1e-12)
        assert not torch.allclose(after[:, first], before[:, first])


def wide_awake(model: nn.Module) -> nn.Module:
    """Weights so large that nothing a position hears is too faint to be seen."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.double().eval()


def test_nothing_looks_ahead():
    assert_causal(wide_awake(host()))


@pytest.mark.parametrize("path", ["blocks.0", "blocks.0.mlp", "blocks.1.attention"])
def test_nothing_looks_ahead_with_any_blueprint_in_any_slot(path):
    for blueprint in karn.CATALOGUE.values():
        model = host()
        (slot,) = slots_of(model, [path], ids()).values()
        if blueprint.fits(slot.record.shape):
            fossil(slot, blueprint.name)
            assert_causal(wide_awake(model))


def test_a_shorter_sequence_is_the_beginning_of_a_longer_one():
    model = wide_awake(host())
    torch.testing.assert_close(model(ids()[:, :5]), model(ids())[:, :5])


def test_every_position_and_every_earlier_token_is_heard():
    model = wide_awake(host())
    x = torch.zeros(1, T, dtype=torch.int64)
    assert not torch.allclose(model(x)[0, 0], model(x)[0, 1]), "positions differ"
    changed = x.clone()
    changed[0, 0] = 1
    assert not torch.allclose(model(changed)[0, -1], model(x)[0, -1])


def by_hand(context: int, vocabulary: int, width: int, depth: int, hidden: int) -> int:
    attention = 3 * width**2 + width**2 + width
    mlp = 2 * width * hidden + hidden + width
    norms = 2 * 2 * width
    embeddings = (context + 2 * vocabulary) * width
    return embeddings + depth * (attention + mlp + norms) + 2 * width


def test_parameter_counts_that_the_documentation_names():
    small = GPT(input_shape=(64,), num_classes=65)
    assert num_parameters(small) == by_hand(64, 65, 32, 2, 128) == 31_488
    assert "31,488" in GPT.__doc__


def test_the_large_one_has_more_than_ten_million(tmp_path):
    cfg = composed("experiment=shakespeare_full", output_dir=tmp_path)
    assert (cfg.data.context, cfg.trainer.max_epochs > 1) == (256, True)
    large = build(cfg.host, "host", input_shape=(cfg.data.context,), num_classes=65)
    assert num_parameters(large) == by_hand(256, 65, 384, 6, 1536) == 10_788_864
    assert "10,788,864" in GPT.__doc__
    assert {type(block.dropout.p) for block in large.blocks} == {float}
    assert large.blocks[0].dropout.p == large.blocks[0].attention.dropout == 0.2


def test_width_of_the_mlp_follows_its_ratio():
    assert host(mlp_ratio=1.5).blocks[0].mlp.expand.out_features == 12
    assert host(mlp_ratio=0.01).blocks[0].mlp.expand.out_features == 1


@pytest.mark.parametrize("width", [32, 128])
def test_weights_suit_any_width_and_blocks_are_the_identity_at_birth(width):
    model = GPT(input_shape=(64,), num_classes=65, width=width, depth=8)
    deviations = {
        "expand": math.sqrt(2 / width),
        "query_key_value": math.sqrt(1 / width),
        "project": 0.0,
    }
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" not in name:
            expected = deviations.get(name.split(".")[-2], 0.02)
            assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.05), name
    x = torch.randn(3, 5, width)
    assert torch.equal(model.blocks(x), x)
    loss = F.cross_entropy(model(ids()).flatten(0, 1), ids().flatten())
    assert loss.item() == pytest.approx(math.log(65), abs=0.1)


def test_every_parameter_gets_a_gradient_once_the_blocks_have_begun_to_write():
    model = host(num_classes=V)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(model(ids(32)).flatten(0, 1), ids(32).flatten()).backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_dropout_acts_in_training_only():
    model = wide_awake(host(dropout=0.5))
    assert not torch.equal(model.train()(ids()), model(ids()))
    assert torch.equal(model.eval()(ids()), model(ids()))
    torch.testing.assert_close(model(ids()), wide_awake(host())(ids()))


def test_blocks_attentions_and_mlps_can_be_slots_and_blocks_are_by_default():
    model = host()
    found = {slot.path: slot for slot in possible_slots(model, lambda: model(ids()))}
    kinds = {"": TransformerBlock, ".attention": CausalSelfAttention, ".mlp": FeedForward}
    for number in range(2):
        for inside, kind in kinds.items():
            slot = found[f"blocks.{number}{inside}"]
            assert slot.module == kind.__name__
            assert slot.shape.input.sizes == slot.shape.output.sizes == (T, 8)
    assert [path for path in found if found[path].suggested] == ["blocks.0", "blocks.1"]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_parallel_mlp_in_the_slot_of_an_mlp_is_a_wider_mlp(dropout):
    """In training with dropout, too: what a block drops is the sum of both."""
    grown, wide = (wide_awake(host(dropout=dropout)) for _ in range(2))
    (slot,) = slots_of(grown, ["blocks.0.mlp"], ids()).values()
    fossil(slot, "parallel_mlp", expansion=2.0)
    narrow, branch = slot.base_layer, slot.fossils[0]
    mlp = wide.blocks[0].mlp = FeedForward(8, hidden=32 + 16).double()
    grown.double()
    with torch.no_grad():
        branch.project.weight.normal_()
        branch.project.bias.normal_()
        mlp.expand.weight.copy_(torch.cat([narrow.expand.weight, branch.expand.weight]))
        mlp.expand.bias.copy_(torch.cat([narrow.expand.bias, branch.expand.bias]))
        mlp.project.weight.copy_(torch.cat([narrow.project.weight, branch.project.weight], dim=1))
        mlp.project.bias.copy_(narrow.project.bias + branch.project.bias)
    found = []
    for model in (grown, wide):
        torch.manual_seed(5)
        found.append(model.train()(ids()))
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)
    assert not torch.allclose(found[0], wide_awake(host())(ids()))


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_operations_of_a_step_as_one_would_count_them_by_hand(dropout):
    """Each linear layer once forward and twice backward; attention 2 products and 5, or 4.

    Among all pairs of positions, those that the mask hides too. With dropout the kernel is not
    fused, and computes nothing twice.
    """
    rows, width, hidden, depth = 3, 8, 32, 2
    model = host(dropout=dropout).train()
    x = ids(rows)
    layers = rows * T * (depth * (4 * width**2 + 2 * width * hidden) + width * V)
    pairs = depth * rows * T * T * width
    with FlopCount() as count:
        loss = F.cross_entropy(model(x).flatten(0, 1), x.flatten())
        forward = count.total
        loss.backward()
    assert forward == 2 * (layers + 2 * pairs)
    backward = 4 if dropout else 5
    assert count.total - forward == 2 * (2 * layers + backward * pairs)


def test_a_grown_one_leaves_as_source_and_as_a_program(tmp_path):
    model = host()
    slots = slots_of(model, ["blocks.0.mlp", "blocks.1.attention", "blocks.1"], ids())
    names = ("parallel_mlp", "token_attention", "causal_conv")
    for slot, name in zip(slots.values(), names, strict=True):
        fossil(slot, name)
    model = wide_awake(model).float()
    network = imported(save_source(model, ids(), tmp_path)).build().eval()
    assert same([network(ids(5))], [model(ids(5))])
    assert same([network(ids(5, 4))], [model(ids(5, 4))])
    save_program(model, ids(), tmp_path / "program.pt2")
    program = torch.export.load(tmp_path / "program.pt2").module()
    torch.testing.assert_close(program(ids(5)), model(ids(5)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_shape": (1, 8, 8)}, r"one positive size \(T,\), .* got \(1, 8, 8\); use the CNN"),
        ({"input_shape": (0,)}, "one positive size"),
        ({"input_shape": ()}, "one positive size"),
        ({"num_classes": 1}, "num_classes must be a whole number of at least 2, got 1"),
        ({"width": 0}, "width must be a whole number of at least 1, got 0"),
        ({"depth": 0}, "depth must be a whole number of at least 1, got 0"),
        ({"num_heads": 0}, "num_heads must be a whole number of at least 1, got 0"),
        ({"num_heads": 3}, "width must be a multiple of num_heads, got 8 and 3"),
        ({"mlp_ratio": 0.0}, "mlp_ratio must be finite and above 0, got 0.0"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio must be finite and above 0, got nan"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1, got -0.1"),
    ],
)
def test_bad_arguments_are_refused(changes, message):
    with pytest.raises(InvalidArgument, match=message):
        host(**changes)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, T), r"takes token ids \(B, T\) torch.int64, got torch.float32"),
        (torch.zeros(T, dtype=torch.int64), r"got torch.int64 of shape \(12,\)"),
        (torch.zeros(3, T + 1, dtype=torch.int64), "at most 12 positions at once, got 13; cut"),
    ],
)
def test_inputs_of_another_kind_are_refused(x, message):
    with pytest.raises(InvalidArgument, match=message):
        host()(x)
