"""What the host's gradients tell: their size, and where none arrives any more."""

import io
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from esper_lightning.kasmina import ENOUGH_LOOKS, HostGradients

Grad = float | None


def host(num: int = 2) -> dict[str, nn.Parameter]:
    return {f"p{n}": nn.Parameter(torch.zeros(2)) for n in range(num)}


def epoch(
    gradients: HostGradients,
    looks: Sequence[Sequence[Grad]],
    *,
    scaled: bool = False,
    keep: bool = True,
) -> int:
    """Run an epoch with a gradient for each parameter and look; how many are blocked in it."""
    parameters = host(len(looks[0]))
    gradients.start_epoch(parameters)
    for look in looks:
        for parameter, grad in zip(parameters.values(), look, strict=True):
            parameter.grad = None if grad is None else torch.tensor([grad, 0.0])
        gradients.observe(overflow_is_skipped=scaled)
    blocked = gradients.num_blocked()
    if keep:
        gradients.keep_epoch()
    return blocked


USUAL = [(3.0, 4.0)] * ENOUGH_LOOKS


def test_a_tensor_that_always_had_a_gradient_and_has_none_is_blocked() -> None:
    gradients = HostGradients()
    assert gradients.norm() is None
    assert epoch(gradients, USUAL) == 0
    assert gradients.norm() == 5.0
    assert epoch(gradients, [(0.0, 4.0)] * ENOUGH_LOOKS, keep=False) == 1
    assert epoch(gradients, [(0.0, 0.0)] * ENOUGH_LOOKS, keep=False) == 2
    assert epoch(gradients, USUAL) == 0


@pytest.mark.parametrize(
    ("before", "now"),
    [
        pytest.param([*USUAL, (0.0, 4.0)], [(0.0, 4.0)] * 9, id="left out by chance before"),
        pytest.param([*USUAL, (None, 4.0)], [(0.0, 4.0)] * 9, id="not in the pass before"),
        pytest.param(USUAL, [(0.0, 4.0)] * 8 + [(1.0, 4.0)], id="not in every look"),
        pytest.param(USUAL, [(0.0, 4.0)] * (ENOUGH_LOOKS - 1), id="too few looks"),
        pytest.param(USUAL, [(None, 4.0)] * 9, id="frozen"),
        pytest.param([(0.0, 4.0)] * 9, [(0.0, 4.0)] * 9, id="never had one"),
    ],
)
def test_others_are_not(before: list[tuple[Grad, ...]], now: list[tuple[Grad, ...]]) -> None:
    gradients = HostGradients()
    assert epoch(gradients, before) == 0
    assert epoch(gradients, now) == 0


def test_what_grew_since_has_a_past_of_its_own() -> None:
    gradients = HostGradients()
    epoch(gradients, USUAL)
    assert epoch(gradients, [(3.0, 4.0, 0.0)] * 9) == 0
    assert epoch(gradients, [(0.0, 4.0, 0.0)] * 9, keep=False) == 1


def test_steps_that_a_loss_scaler_skips_are_not_looked_at() -> None:
    gradients = HostGradients()
    inf = float("inf")
    epoch(gradients, [(inf, 4.0), *USUAL, (3.0, float("nan"))], scaled=True)
    assert gradients.norm() == 5.0
    assert epoch(gradients, [(inf, inf)] * 3 + [(0.0, 4.0)] * 3, scaled=True, keep=False) == 0
    assert epoch(gradients, [(inf, inf)] * 3 + [(0.0, 4.0)] * 4, scaled=True, keep=False) == 1
    epoch(gradients, [(inf, inf)] * 9, scaled=True)
    assert gradients.norm() is None
    epoch(gradients, [(inf, 4.0)])
    assert gradients.norm() == inf, "without a scaler the step is taken"


def test_it_goes_on_within_an_epoch() -> None:
    whole, parts = HostGradients(), HostGradients()
    for gradients in (whole, parts):
        epoch(gradients, USUAL)
        epoch(gradients, [(0.0, 4.0)] * 3, keep=False)
    saved = io.BytesIO()
    torch.save(parts.state_dict(), saved)
    saved.seek(0)
    rest = HostGradients()
    rest.start_epoch(host())
    rest.load_state_dict(torch.load(saved, weights_only=True))
    assert (rest.num_blocked(), rest.num_looks) == (0, 3)
    for gradients in (whole, rest):
        for parameter, grad in zip(gradients._parameters.values(), (0.0, 4.0), strict=True):
            parameter.grad = torch.tensor([grad, 0.0])
        gradients.observe()
    assert (rest.num_blocked(), rest.norm()) == (1, whole.norm())
