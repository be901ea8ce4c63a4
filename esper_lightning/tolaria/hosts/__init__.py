"""Hosts: small networks that start training and can grow. Any other ``nn.Module`` is one, too."""

from esper_lightning.tolaria.hosts.cnn import CNN, ConvBlock, ResidualBlock
from esper_lightning.tolaria.hosts.gpt import (
    GPT,
    CausalSelfAttention,
    FeedForward,
    TransformerBlock,
)
from esper_lightning.tolaria.hosts.mlp import MLP, DenseBlock
from esper_lightning.tolaria.hosts.resnet import BasicBlock, ResNet

__all__ = [
    "CNN",
    "GPT",
    "MLP",
    "BasicBlock",
    "CausalSelfAttention",
    "ConvBlock",
    "DenseBlock",
    "FeedForward",
    "ResNet",
    "ResidualBlock",
    "TransformerBlock",
]
