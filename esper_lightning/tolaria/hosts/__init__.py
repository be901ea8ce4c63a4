"""Hosts: small networks that start training and can grow. Any other ``nn.Module`` is one, too."""

from esper_lightning.tolaria.hosts.cnn import CNN, ConvBlock
from esper_lightning.tolaria.hosts.mlp import MLP, DenseBlock

__all__ = ["CNN", "MLP", "ConvBlock", "DenseBlock"]
