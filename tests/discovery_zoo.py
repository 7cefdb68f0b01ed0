"""Tiny modules for the scanner, each with one oddity."""

import torch
from torch import nn


class Attention(nn.Module):
    """Attention with ordinary names."""

    def __init__(self, width: int = 8) -> None:
        """Make every projection square."""
        super().__init__()
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)


class FeedForward(nn.Module):
    """A feed-forward network whose layers have unknown names."""

    def __init__(self, width: int = 8) -> None:
        """Widen by four and narrow again."""
        super().__init__()
        self.alpha = nn.Linear(width, 4 * width)
        self.beta = nn.Linear(4 * width, width)


class Block(nn.Module):
    """An attention and a feed-forward network."""

    def __init__(self) -> None:
        """Make both."""
        super().__init__()
        self.attn = Attention()
        self.mlp = FeedForward()
        self.norm = nn.LayerNorm(8)


class Decoder(nn.Module):
    """Token embedding, blocks and a head tied to the embedding."""

    def __init__(self, blocks: int = 3) -> None:
        """Make so many blocks."""
        super().__init__()
        self.embed = nn.Embedding(32, 8)
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.head = nn.Linear(8, 32, bias=False)
        self.head.weight = self.embed.weight


class Experts(nn.Module):
    """Fused experts: stacks of matrices."""

    def __init__(self) -> None:
        """Make four experts."""
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.zeros(4, 16, 8))
        self.down_proj = nn.Parameter(torch.zeros(4, 8, 8))


class SparseBlock(nn.Module):
    """A mixture of experts with a router and a shared expert."""

    def __init__(self) -> None:
        """Make router, experts and shared expert."""
        super().__init__()
        self.gate = nn.Linear(8, 4, bias=False)
        self.experts = Experts()
        self.shared_experts = FeedForward()


class SparseDecoder(nn.Module):
    """Attention and experts in every block."""

    def __init__(self) -> None:
        """Make two blocks."""
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict({"attn": Attention(), "mlp": SparseBlock()}) for _ in range(2))
        self.lm_head = nn.Linear(8, 32)


class ConvBlock(nn.Module):
    """Depthwise, pointwise and a squeeze gate."""

    def __init__(self) -> None:
        """Make the three."""
        super().__init__()
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point = nn.Conv2d(8, 8, 1)
        self.se = nn.Sequential(nn.Conv2d(8, 2, 1), nn.ReLU(), nn.Conv2d(2, 8, 1))


class ConvNet(nn.Module):
    """A stem, two blocks and a classifier."""

    def __init__(self) -> None:
        """Make them."""
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.blocks = nn.Sequential(ConvBlock(), ConvBlock())
        self.fc = nn.Linear(8, 5)


class NoLayers(nn.Module):
    """Nothing an adapter could sit on."""

    def __init__(self) -> None:
        """Own a norm and a scale."""
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.scale = nn.Parameter(torch.ones(4))
