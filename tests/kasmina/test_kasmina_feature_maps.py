"""Feature maps of tensors, and a probe that leaves no trace."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from esper_lightning.kasmina import feature_map, probing
from esper_lightning.leyline import FeatureKind, SlotUnsuitable


class Noisy(nn.Module):
    """Leaves every trace that a forward pass can leave."""

    counter: Tensor
    cache: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.frozen = nn.BatchNorm1d(3)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(3, 3)
        self.register_buffer("counter", torch.zeros((), dtype=torch.long))
        self.register_buffer("rebound", torch.zeros(2), persistent=False)
        self.register_buffer("cache", None)
        self.frozen.eval()

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        assert not self.norm.training
        assert not torch.is_grad_enabled()
        random.random()
        np.random.rand()
        self.counter.add_(1)
        self.rebound = torch.rand(5)
        self.cache = x
        self.register_buffer("late", x)
        # A host may go its own way about modes; BatchNorm then moves its statistics.
        self.norm.train()
        output: Tensor = self.linear(self.frozen(self.norm(x + torch.rand_like(x))))
        return torch.add(output, self.dropout(output))


def trace(model: nn.Module) -> dict[str, Any]:
    """All that a probe may not change, with the identity of tensors."""
    buffers = {
        f"{path}.{name}": (id(buffer), None if buffer is None else buffer.tolist())
        for path, module in model.named_modules()
        for name, buffer in module._buffers.items()
    }
    numpy_state = np.random.get_state(legacy=False)
    return {
        "buffers": buffers,
        "order": list(buffers),
        "state": {k: v.tolist() for k, v in model.state_dict().items()},
        "modes": {path: module.training for path, module in model.named_modules()},
        "grads": [p.grad for p in model.parameters()],
        "wanted": [p.requires_grad for p in model.parameters()],
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(numpy_state["state"]["key"].tolist()) + str(numpy_state["state"]["pos"]),
        "python": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
    }


@pytest.mark.parametrize("training", [True, False])
def test_a_probe_leaves_no_trace(training: bool) -> None:
    model = Noisy().train(training)
    model.frozen.eval()
    model.norm.running_mean = torch.tensor([1.0, 2.0, 3.0])
    before = trace(model)
    with probing(model):
        output = model(torch.ones(4, 3))
    assert not output.requires_grad
    assert trace(model) == before


def test_a_probe_leaves_no_trace_after_an_error() -> None:
    model = Noisy()
    before = trace(model)
    with pytest.raises(RuntimeError, match="mat1 and mat2"), probing(model):
        model(torch.ones(4, 3) * 1.0), model.linear(torch.ones(4, 5))
    assert trace(model) == before


def test_a_probe_shows_what_the_model_does_in_use() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.9))
    x = torch.randn(4, 3)
    with probing(model):
        probed = model(x)
    assert torch.equal(probed, model.eval()(x))


def test_probes_can_be_nested_and_a_model_may_have_no_parameters() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Dropout())
    with probing(model), probing(model):
        model(torch.ones(1, 2))
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("shape", "kind", "sizes"),
    [
        ((2, 3, 8, 6), FeatureKind.SPATIAL, (3, 8, 6)),
        ((2, 10, 4), FeatureKind.TOKENS, (10, 4)),
        ((2, 5), FeatureKind.VECTOR, (5,)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_batch_has_a_feature_map(
    shape: tuple[int, ...], kind: FeatureKind, sizes: tuple[int, ...], dtype: torch.dtype
) -> None:
    found = feature_map(torch.zeros(shape, dtype=dtype))
    assert (found.kind, found.sizes) == (kind, sizes)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(3),
        torch.zeros(1, 2, 3, 4, 5),
        torch.zeros(()),
        torch.zeros(2, 3, dtype=torch.long),
        torch.zeros(2, 3, dtype=torch.complex64),
    ],
    ids=["B", "video", "scalar", "integers", "complex"],
)
def test_what_a_slot_cannot_carry_is_refused_by_name(tensor: Tensor) -> None:
    shape = tuple(tensor.shape)
    with pytest.raises(SlotUnsuitable) as refused:
        feature_map(tensor, what="slot 'a' input")
    assert f"slot 'a' input is {tensor.dtype} of shape {shape}" in str(refused.value)
