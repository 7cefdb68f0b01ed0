"""Small models of two blocks around ``nn.MultiheadAttention`` and its subclasses, each with one oddity."""

import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from torch import nn

WIDTH = 16


class PassesOn(nn.MultiheadAttention):
    """A forward of its own that passes on to PyTorch's, and returns what it returns."""

    def forward(self, query, *_):
        """Attend to itself."""
        return super().forward(query, query, query, need_weights=False)


class ReturnsTensor(nn.MultiheadAttention):
    """Returns a tensor, of which PEFT's adapter would take the first two samples for a pair."""

    def forward(self, x, *_):
        """Attend to itself."""
        return super().forward(x, x, x, need_weights=False)[0]


class Packed(nn.MultiheadAttention):
    """Multiplies with its packed weight itself, and calls its output projection."""

    def forward(self, query, *_):
        """Attend to itself."""
        q, k, v = F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        return self.out_proj(F.scaled_dot_product_attention(q, k, v)), None


class OwnProjections(nn.MultiheadAttention):
    """Projects with linears of its own and leaves PyTorch's packed weight alone."""

    def __init__(self, width, heads, **settings):
        super().__init__(width, heads, **settings)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x, *_):
        """Attend to itself."""
        attended = F.scaled_dot_product_attention(self.to_q(x), self.to_k(x), self.to_v(x))
        return self.out_proj(attended)


class CallsItselfMe(OwnProjections):
    """Calls its projections by another name than ``self``."""

    def forward(me, x, *_):  # noqa: N805 - the point of it
        """Attend to itself."""
        return me.out_proj(F.scaled_dot_product_attention(me.to_q(x), me.to_k(x), me.to_v(x)))


class Block(nn.Module):
    """Attention, then a feed-forward network, with residuals."""

    def __init__(self, attention=nn.MultiheadAttention, **settings):
        super().__init__()
        self.attn = attention(WIDTH, 2, batch_first=True, **settings)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)

    def attend(self, x):
        """Return what the attention writes."""
        attended = self.attn(x, x, x)
        return attended[0] if isinstance(attended, tuple) else attended

    def forward(self, x):
        """Return as many vectors as came in."""
        x = x + self.attend(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class ReadsOutside(Block):
    """Reads the weights of an attention that it never calls."""

    def attend(self, x):
        """Attend with the function."""
        attn, x = self.attn, x.transpose(0, 1)
        weights = (attn.in_proj_weight, attn.in_proj_bias, None, None, False, 0.0)
        output = (attn.out_proj.weight, attn.out_proj.bias)
        return F.multi_head_attention_forward(x, x, x, WIDTH, 2, *weights, *output)[0].transpose(0, 1)


class Ignores(Block):
    """Calls an attention and does not use what it writes."""

    def attend(self, x):
        """Attend for nothing."""
        super().attend(x)
        return x


class Encoder(nn.Module):
    """Two such blocks and a classifier; a tensor (batch, positions, width) comes in."""

    def __init__(self, block=Block, *arguments, **settings):
        super().__init__()
        self.blocks = nn.ModuleList([block(*arguments, **settings) for _ in range(2)])
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x):
        """Return logits."""
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


class Translator(nn.Module):
    """PyTorch's encoder and decoder: attention to itself and to the encoder."""

    def __init__(self):
        super().__init__()
        self.body = nn.Transformer(WIDTH, 2, 2, 2, 32, batch_first=True)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x):
        """Return logits."""
        return self.head(self.body(x, x))


def inputs():
    """Return the input of every model here."""
    return torch.randn(3, 5, WIDTH)


def several_widths():
    """Return an encoder whose keys and values could have another width than its queries."""
    model = Encoder()
    for block in model.blocks:
        block.attn = nn.MultiheadAttention(WIDTH, 2, kdim=WIDTH, vdim=WIDTH, batch_first=True)
        block.attn._qkv_same_embed_dim = False
        packed = block.attn.in_proj_weight.data
        del block.attn.in_proj_weight
        block.attn.register_parameter("in_proj_weight", None)
        for name, part in zip("qkv", packed.chunk(3), strict=True):
            block.attn.register_parameter(f"{name}_proj_weight", nn.Parameter(part.clone()))
    return model
