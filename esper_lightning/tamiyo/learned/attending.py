"""Acting: the blocks of the encoder for one boundary.

They compute what :class:`~esper_lightning.tamiyo.learned.encoder.Block` does, with fewer calls: the
three projections of an attention are one product, and the biases of a host's dataflow, which does
not change, are looked up once.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esper_lightning.leyline import InvalidArgument
from esper_lightning.tamiyo.learned.encoder import Block, Encoder, token_relations


class Attending:
    """The blocks of an encoder and its last norm.

    Args:
        encoder: whose weights it takes, as they are now.

    Raises:
        InvalidArgument: there are adapters in it.
    """

    def __init__(self, encoder: Encoder) -> None:
        blocks = [block for block in encoder.blocks if isinstance(block, Block)]
        self._blocks = [_Block(block) for block in blocks]
        self._norm = _Norm(encoder.norm)
        self._seen: tuple[Tensor, int] | None = None
        self._biases: list[Tensor] = []

    def __call__(self, x: Tensor, relations: Tensor, num_blueprints: int) -> Tensor:
        """``(T, d)`` to the same.

        Args:
            x: embedded tokens.
            relations: ``(n, n)``, of layers and slots, of an observation.
            num_blueprints: of the last tokens.
        """
        if self._seen is None or self._seen[0] is not relations or self._seen[1] != num_blueprints:
            self._seen = relations, num_blueprints
            tokens = token_relations(relations[None], num_blueprints)[0]
            self._biases = [block.biases(tokens) for block in self._blocks]
        for block, bias in zip(self._blocks, self._biases, strict=True):
            x = block(x, bias)
        return self._norm(x)


def plain(module: nn.Module) -> nn.Linear:
    """A linear layer of which the weights are all that it computes with.

    Raises:
        InvalidArgument: an adapter is around it.
    """
    if not isinstance(module, nn.Linear):
        raise InvalidArgument(
            f"a network acts by plain linear layers, one is a {type(module).__name__}; merge its "
            "adapters first (merge_and_unload)"
        )
    return module


class _Norm:
    def __init__(self, norm: nn.LayerNorm) -> None:
        self._shape, self._eps = tuple(norm.normalized_shape), norm.eps
        self._weight, self._bias = norm.weight.detach(), norm.bias.detach()

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self._shape, self._weight, self._bias, self._eps)


class _Block:
    def __init__(self, block: Block) -> None:
        attention = block.attention
        inner = [plain(each) for each in (attention.query, attention.key, attention.value)]
        self._heads = attention.heads
        self._bias = attention.bias.weight.detach()
        self._norms = _Norm(block.attention_norm), _Norm(block.perceptron_norm)
        self._inner = (
            torch.cat([each.weight.detach() for each in inner]),
            torch.cat([each.bias.detach() for each in inner]),
        )
        self._output, self._expand, self._project = (
            (each.weight.detach(), each.bias.detach())
            for each in map(plain, (attention.output, block.expand, block.project))
        )

    def biases(self, relations: Tensor) -> Tensor:
        """``(heads, T, T)``."""
        return F.embedding(relations, self._bias).permute(2, 0, 1).contiguous()

    def __call__(self, x: Tensor, bias: Tensor) -> Tensor:
        length, width = x.shape
        inner = F.linear(self._norms[0](x), *self._inner)
        query, key, value = inner.view(length, 3, self._heads, -1).permute(1, 2, 0, 3)
        mixed = F.scaled_dot_product_attention(query[None], key[None], value[None], bias[None])
        x = x + F.linear(mixed[0].transpose(0, 1).reshape(length, width), *self._output)
        hidden = F.gelu(F.linear(self._norms[1](x), *self._expand))
        return x + F.linear(hidden, *self._project)
