"""Calls that construct modules of torch.nn as they are."""

import pytest
import torch
from torch import nn

from esper_lightning.kasmina.export.constructors import constructor

MODULES = {
    "nn.Linear(3, 4)": nn.Linear(3, 4),
    "nn.Linear(3, 4, bias=False, dtype=torch.float64)": nn.Linear(3, 4, bias=False).double(),
    "nn.Conv2d(1, 4, (3, 3), padding=(1, 1))": nn.Conv2d(1, 4, 3, padding=1),
    "nn.Conv1d(2, 2, (3,), padding='same', padding_mode='circular')": nn.Conv1d(
        2, 2, 3, padding="same", padding_mode="circular"
    ),
    "nn.BatchNorm2d(3, affine=False)": nn.BatchNorm2d(3, affine=False),
    "nn.BatchNorm1d(3, momentum=None)": nn.BatchNorm1d(3, momentum=None),
    "nn.LayerNorm((4, 5), bias=False)": nn.LayerNorm((4, 5), bias=False),
    "nn.GroupNorm(2, 4, eps=0.1)": nn.GroupNorm(2, 4, eps=0.1),
    "nn.GRU(3, 4, batch_first=True, bidirectional=True)": nn.GRU(
        3, 4, batch_first=True, bidirectional=True
    ),
    "nn.LSTM(3, 4, num_layers=2, dropout=0.1, proj_size=2)": nn.LSTM(
        3, 4, num_layers=2, dropout=0.1, proj_size=2
    ),
    "nn.MultiheadAttention(8, 2, bias=False, add_bias_kv=True, kdim=3)": nn.MultiheadAttention(
        8, 2, kdim=3, bias=False, add_bias_kv=True
    ),
    "nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, activation='gelu', norm_first=True)": (
        nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", norm_first=True)
    ),
    "nn.Embedding(5, 3, padding_idx=0)": nn.Embedding(5, 3, padding_idx=0),
    "nn.Upsample(scale_factor=2.0, mode='bilinear')": nn.Upsample(scale_factor=2, mode="bilinear"),
    "nn.MaxPool2d(3, stride=2, padding=1)": nn.MaxPool2d(3, 2, 1),
    "nn.AdaptiveAvgPool2d((None, 2))": nn.AdaptiveAvgPool2d((None, 2)),
    "nn.Dropout(p=0.3, inplace=True)": nn.Dropout(0.3, inplace=True),
    "nn.ReLU(inplace=True)": nn.ReLU(inplace=True),
    "nn.Threshold(0.1, float('-inf'))": nn.Threshold(0.1, float("-inf")),
    "nn.GELU(approximate='tanh')": nn.GELU("tanh"),
    "nn.Flatten()": nn.Flatten(),
    "nn.Identity()": nn.Identity(1, something=2),
}


@pytest.mark.parametrize("text", MODULES)
def test_as_few_arguments_as_it_takes(text: str) -> None:
    module = MODULES[text]
    assert constructor(module) == text
    again = eval(text, {"nn": nn, "torch": torch})
    again.load_state_dict(module.state_dict())
    assert repr(again) == repr(module)


class Mine(nn.Linear):
    pass


def hooked() -> nn.Module:
    module = nn.Linear(3, 3)
    module.register_forward_hook(lambda *_: None)
    return module


def patched() -> nn.Module:
    module = nn.Linear(3, 3)
    module.forward = lambda x: x  # type: ignore[method-assign]
    return module


def replaced() -> nn.Module:
    module = nn.TransformerEncoderLayer(8, 2)
    module.linear1 = nn.Sequential(module.linear1)  # type: ignore[assignment]
    return module


def resized() -> nn.Module:
    module = nn.Linear(3, 3)
    module.weight = nn.Parameter(torch.zeros(5, 3))
    return module


@pytest.mark.parametrize(
    "module",
    [
        Mine(3, 3),
        hooked(),
        patched(),
        replaced(),
        resized(),
        nn.Sequential(nn.ReLU()),
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
        nn.LazyLinear(3),
        nn.RNN(2, 3, nonlinearity="relu"),
    ],
    ids=lambda module: type(module).__name__,
)
def test_what_a_call_would_not_make_has_none(module: nn.Module) -> None:
    assert constructor(module) is None
