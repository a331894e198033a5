"""MAR: refines features cell by cell with a memory of hard and of typical features of every class."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from vss_ros.methods.blocks.stf import DROPPED, FeedForward


class MemoryAttention(nn.Module):
    """Looks up cells in the memory; one head, scores not scaled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q = projection(width)
        self.to_k = projection(width)
        self.to_v = projection(width)
        self.to_out = nn.Sequential(nn.Linear(width // 2, width), nn.Dropout(DROPPED))

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Tokens (..., d), keys and values (1, rows, d) -> what was found (..., d)."""
        return self.to_out(self.weights(tokens, keys) @ self.to_v(values[0]))

    def weights(self, tokens: Tensor, keys: Tensor) -> Tensor:
        """Share of every row of the memory in what each token finds, (..., rows)."""
        return (self.to_q(tokens) @ self.to_k(keys[0]).T).softmax(-1)


class Refiner(FeedForward):
    """A transformer's decoder layer with the memory in the place of the other tokens."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.attn = MemoryAttention(width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, found: Tensor) -> Tensor:
        """Tokens and what they found in the memory -> refined tokens, all (..., d)."""
        tokens = self.norm1(tokens + self.dropout(found))
        return self.norm2(tokens + self.dropout(self.feed_forward(tokens)))


class Mar(nn.Module):
    """Features (N, d, h, w) -> refined features (N, d, h, w).

    The memory is stored, not trained: `memory_key` holds hard features, class after class, and the
    same rows of `memory_value` the prototype of their class, again and again. It starts as zeros.
    """

    memory_key: Tensor
    memory_value: Tensor

    def __init__(self, width: int, classes: int, keys_per_class: int) -> None:
        super().__init__()
        self.keys_per_class = keys_per_class
        self.register_buffer('memory_key', torch.zeros(1, classes * keys_per_class, width))
        self.register_buffer('memory_value', torch.zeros(1, classes * keys_per_class, width))
        self.HEdecoder = Refiner(width)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        tokens = features.permute(0, 2, 3, 1)
        found = self.HEdecoder.attn(tokens, self.memory_key, self.memory_value)
        return self.HEdecoder(tokens, found).permute(0, 3, 1, 2)

    @torch.no_grad()
    def remember(self, keys: Tensor, prototypes: Tensor) -> None:
        """Fill the memory.

        Args:
            keys: hard features, class after class, (K * keys_per_class, d).
            prototypes: typical features, (K, d).
        """
        self.memory_key.copy_(keys[None])
        self.memory_value.copy_(prototypes.repeat_interleave(self.keys_per_class, 0)[None])

    @torch.no_grad()
    def folded(self) -> FoldedMar:
        """The same for inference: with a fixed memory all linear maps in a row become one."""
        attention = deepcopy(self.HEdecoder.attn).double().eval()  # products of many matrices lose digits
        memory_key, memory_value = self.memory_key[0].double(), self.memory_value[0].double()
        rows, width = memory_key.shape
        queries = attention.to_q(torch.eye(width).to(memory_key))
        folded = FoldedMar(self.HEdecoder, width, rows)
        folded.compare.weight.copy_(attention.to_k(memory_key) @ queries.T)
        # The weights of the rows add up to 1, so each row can bring the whole bias with it.
        folded.read.weight.copy_(attention.to_out(attention.to_v(memory_value)).T)
        return folded


class FoldedMar(nn.Module):
    """MAR as two 1x1 convolutions around a softmax; equal to it up to rounding, for inference only."""

    def __init__(self, refiner: Refiner, width: int, rows: int) -> None:
        super().__init__()
        self.compare = nn.Linear(width, rows, bias=False)
        self.read = nn.Linear(rows, width, bias=False)
        self.refiner = refiner

    def forward(self, features: Tensor) -> Tensor:
        tokens = features.permute(0, 2, 3, 1)
        found = self.read(self.compare(tokens).softmax(-1))
        return self.refiner(tokens, found).permute(0, 3, 1, 2)


def projection(width: int) -> nn.Sequential:
    """d -> d/2 as the release does it, three linear maps with nothing between them."""
    half = width // 2
    sizes = ((width, width), (width, half), (half, half))
    return nn.Sequential(*(nn.Linear(*size, bias=False) for size in sizes))
