"""Rarer spellings of attention, and layers of classes of their own, with names that tell nothing; see ``flow_zoo``.

In every attention ``b`` writes the queries, ``d`` the keys, ``a`` the values, and ``c`` reads the result.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from flow_zoo import HEADS, LENGTH, SIZE, WIDTH, Fused, Letters, Parallel, Plain, join, split
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

# --- linear attention -----------------------------------------------------------------------------------------------


def heads(tensor):
    """Return (batch, length, width) as (batch, length, heads, head size)."""
    return tensor.unflatten(-1, (HEADS, SIZE))


class StateByEinsum(Letters):
    """Fast-transformers' linear attention: the state is a sum over positions, the result is normalised."""

    def forward(self, x):
        """Sum keys times values, then ask."""
        query, key, value = (heads(layer(x)) for layer in (self.b, self.d, self.a))
        query, key = F.elu(query) + 1, F.elu(key) + 1
        state = torch.einsum("nshd,nshv->nhdv", key, value)
        scale = 1 / (torch.einsum("nlhd,nhd->nlh", query, key.sum(dim=1)) + 1e-6)
        return self.c(torch.einsum("nlhd,nhdv,nlh->nlhv", query, state, scale).flatten(-2))


class StateOfPermutedLetters(Letters):
    """The same with values first, a state the other way round, and heads before positions."""

    def forward(self, x):
        """Sum values times keys, then ask."""
        query, key, value = (split(layer(x)) for layer in (self.b, self.d, self.a))
        state = torch.einsum("zqjp,zqjw->zqpw", value, F.relu(key))
        return self.c(join(torch.einsum("zqpw,zqtw->zqtp", state, F.relu(query))))


class StateByEllipsis(Letters):
    """The same with an ellipsis for batch and heads."""

    def forward(self, x):
        """Sum keys times values, then ask."""
        query, key, value = (split(layer(x)) for layer in (self.b, self.d, self.a))
        state = torch.einsum("...nd,...ne->...de", key.softmax(-2), value)
        return self.c(join(torch.einsum("...de,...nd->...ne", state, query.softmax(-1))))


class StateOfSquares(Letters):
    """As many positions as a head has features: sizes tell nothing."""

    def forward(self, x):
        """Sum keys times values, then ask."""
        longer = F.pad(x, (0, 0, 0, SIZE - x.shape[1]))
        query, key, value = (split(layer(longer)) for layer in (self.b, self.d, self.a))
        state = F.relu(key).transpose(-1, -2) @ value
        return self.c(join(F.relu(query) @ state)[:, : x.shape[1]])


class StateOfRunningSums(Letters):
    """Causal linear attention: a state for each position, the running sum of those before."""

    def forward(self, x):
        """Sum keys times values up to each position, then ask."""
        query, key, value = (split(layer(x)) for layer in (self.b, self.d, self.a))
        states = torch.einsum("bhnd,bhne->bhnde", F.elu(key) + 1, value).cumsum(2)
        return self.c(join(torch.einsum("bhnd,bhnde->bhne", query.softmax(-1), states)))


class AskedTwice(Fused):
    """Induced attention (arXiv:1810.00825): what one call writes, the next reads, in the same layers."""

    def __init__(self):
        super().__init__()
        self.points = nn.Parameter(torch.randn(1, 4, WIDTH))

    def forward(self, x):
        """Attend from a few points, then to them."""
        return self.attend(x, self.attend(self.points.expand(len(x), -1, -1), x))

    def attend(self, x, memory):
        """Ask with one, answer with the other."""
        query, key, value = split(self.b(x)), split(self.d(memory)), split(self.a(memory))
        return self.c(join(F.scaled_dot_product_attention(query, key, value)))


class ScoresByEinsum(Letters):
    """Scores without a softmax, then the values: the order of a linear transformer that is no linear one."""

    def forward(self, x):
        """Multiply queries with keys, then with values."""
        query, key, value = (heads(layer(x)) for layer in (self.b, self.d, self.a))
        scores = torch.einsum("nlhd,nshd->nhls", query, key)
        return self.c(torch.einsum("nhls,nshd->nlhd", scores / x.shape[1], value).flatten(-2))


class RandomFeatures(Letters):
    """Performer's positive random features (arXiv:2009.14794): exponentials that are no decay."""

    def __init__(self):
        super().__init__()
        self.register_buffer("p", torch.randn(11, SIZE))

    def features(self, x):
        """Return the random features of queries or keys."""
        projected = torch.einsum("...d,md->...m", x, self.p)
        return torch.exp(projected - (x**2).sum(-1, keepdim=True) / 2 - projected.amax(-1, keepdim=True)) + 1e-4

    def forward(self, x):
        """Sum keys times values, then ask."""
        query, key, value = (split(layer(x)) for layer in (self.b, self.d, self.a))
        query, key = self.features(query), self.features(key)
        state = torch.einsum("...nd,...ne->...de", key, value)
        scale = 1 / torch.einsum("...nd,...d->...n", query, key.sum(-2))
        return self.c(join(torch.einsum("...de,...nd,...n->...ne", state, query, scale)))


class RandomFeaturesByMatmul(RandomFeatures):
    """The same with matrix products, and cosines beside sines."""

    def features(self, x):
        """Return the random features of queries or keys."""
        projected = x @ self.p.t()
        return torch.exp(x.square().sum(-1, keepdim=True) / 2) * torch.cat((projected.cos(), projected.sin()), -1)

    def forward(self, x):
        """Sum keys times values, then ask."""
        query, key, value = (split(layer(x)) for layer in (self.b, self.d, self.a))
        state = self.features(key).transpose(-1, -2) @ value
        return self.c(join(self.features(query) @ state))


LINEAR = [
    StateByEinsum,
    StateOfPermutedLetters,
    StateByEllipsis,
    StateOfSquares,
    StateOfRunningSums,
    ScoresByEinsum,
    RandomFeatures,
    RandomFeaturesByMatmul,
]


# --- attention over the edges of a graph ----------------------------------------------------------------------------


def softmax_of_edges(scores, receivers, nodes):
    """Return scores as weights that add up to one for each receiver."""
    most = torch.full((nodes, *scores.shape[1:]), -1e9, device=scores.device)
    rows = receivers.view(-1, *[1] * (scores.dim() - 1)).expand_as(scores)
    weights = (scores - most.scatter_reduce(0, rows, scores, reduce="amax")[receivers]).exp()
    total = torch.zeros((nodes, *scores.shape[1:]), device=scores.device).index_add(0, receivers, weights)
    return weights / (total[receivers] + 1e-16)


class EdgesOfThree(Letters):
    """PyTorch Geometric's TransformerConv: scores are products, by each edge."""

    def forward(self, x, edges):
        """Gather, weigh and add up."""
        senders, receivers = edges
        query, key, value = (heads(layer(x)) for layer in (self.b, self.d, self.a))
        weights = softmax_of_edges((query[receivers] * key[senders]).sum(-1), receivers, len(x))
        return self.c(torch.zeros_like(value).index_add(0, receivers, value[senders] * weights[..., None]).flatten(1))


class EdgesScored(Letters):
    """A layer scores both ends of each edge (``e``), and each edge is projected behind the gathering."""

    def __init__(self):
        """Add the score."""
        super().__init__()
        self.e = nn.Linear(2 * WIDTH, 1)

    def forward(self, x, edges):
        """Gather, weigh and add up."""
        ends = self.d(x.index_select(0, edges[0])), self.b(x.index_select(0, edges[1]))
        weights = softmax_of_edges(F.leaky_relu(self.e(torch.cat(ends, -1))), edges[1], len(x))
        message = self.a(x).index_select(0, edges[0]) * weights
        rows = edges[1].unsqueeze(-1).expand_as(message)
        return self.c(x.new_zeros(x.shape).scatter_add_(0, rows, message))


class EdgesOfTwo(nn.Module):
    """PyTorch Geometric's GATv2Conv: one layer for key and value."""

    def __init__(self):
        """Build it."""
        super().__init__()
        self.b, self.a = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.e = nn.Parameter(torch.randn(1, HEADS, SIZE))

    def forward(self, x, edges):
        """Gather, weigh and add up."""
        sent, received = heads(self.a(x)), heads(self.b(x))
        scores = (F.leaky_relu(sent[edges[0]] + received[edges[1]]) * self.e).sum(-1)
        weights = softmax_of_edges(scores, edges[1], len(x))
        return torch.zeros_like(sent).index_add_(0, edges[1], sent[edges[0]] * weights.unsqueeze(-1)).flatten(1)


class EdgesOfOne(nn.Module):
    """GATConv: one layer for all, and scores that are sums of one number for each end."""

    def __init__(self):
        """Build it."""
        super().__init__()
        self.a = nn.Linear(WIDTH, WIDTH, bias=False)
        self.e, self.f = (nn.Parameter(torch.randn(1, HEADS, SIZE)) for _ in range(2))

    def forward(self, x, edges):
        """Gather, weigh and add up."""
        made = heads(self.a(x))
        scores = (made * self.e).sum(-1)[edges[0]] + (made * self.f).sum(-1)[edges[1]]
        message = made[edges[0]] * softmax_of_edges(F.leaky_relu(scores), edges[1], len(x))[..., None]
        return torch.zeros_like(made).index_add(0, edges[1], message).flatten(1)


class GatedEdges(Letters):
    """No softmax: a gate by the receiver, as in a gated graph convolution."""

    def forward(self, x, edges):
        """Gather, gate and add up."""
        message = self.a(x)[edges[0]] * self.b(x)[edges[1]].sigmoid()
        return self.c(torch.zeros_like(x).index_add(0, edges[1], message))


class OverEdges(nn.Module):
    """Three convolutions over a graph one after the other, between two layers."""

    def __init__(self, convolution):
        """Build them."""
        super().__init__()
        self.i, self.o = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2)
        self.u = nn.ModuleList([convolution() for _ in range(3)])

    def forward(self, x, edge_index):
        """Run them."""
        x = self.i(x)
        for convolution in self.u:
            x = F.elu(convolution(x, edge_index))
        return self.o(x)


EDGES = {
    EdgesOfThree: {"b": "attention.query", "d": "attention.key", "a": "attention.value", "c": "attention.output"},
    EdgesScored: {
        "b": "attention.query",
        "d": "attention.key",
        "a": "attention.value",
        "c": "attention.output",
        "e": "other",
    },
    EdgesOfTwo: {"b": "attention.query", "a": "attention.kv"},
    EdgesOfOne: {"a": "attention.qkv"},
}
"""The roles of the layers of each."""


class Additive(nn.Module):
    """Scores by a layer on the sum of both (Bahdanau), in a width at which a layer may be one that mixes heads."""

    def __init__(self):
        """Build it."""
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.e = nn.Linear(WIDTH, 1)

    def forward(self, x):
        """Score each pair."""
        scores = self.e(torch.tanh(self.b(x)[:, :, None] + self.d(x)[:, None]))[..., 0]
        return self.c(scores.softmax(-1) @ self.a(x))


# --- FlexAttention --------------------------------------------------------------------------------------------------


def causal(_batch, _head, query, key):
    """Let a position see those before it."""
    return query >= key


class Flex(Letters):
    """Torch's FlexAttention with a block mask and a score function."""

    attend = staticmethod(flex_attention)

    def forward(self, x):
        """Attend under a causal mask."""
        mask = create_block_mask(causal, None, None, x.shape[1], x.shape[1], device=x.device)
        query, key, value = (split(layer(x)) for layer in (self.b, self.d, self.a))
        return self.c(join(self.attend(query, key, value, lambda score, *_: score * 2, mask)))


class FlexCompiled(Flex):
    """The same, compiled where it is imported, as its documentation advises."""

    attend = staticmethod(torch.compile(flex_attention))


class FlexWithSums(Letters):
    """The same with the sums of the scores returned too."""

    def forward(self, x):
        """Attend, and pass the sums by."""
        query, key, value = (split(layer(x)) for layer in (self.b, self.d, self.a))
        found, _ = flex_attention(query, key, value, return_lse=True)
        return self.c(join(found))


FLEX = [Flex, FlexCompiled, FlexWithSums]

# --- lists in lists -------------------------------------------------------------------------------------------------


class Pairs(nn.Module):
    """Blocks as lists of an attention and a feed-forward network; the sums are outside of them."""

    def __init__(self):
        super().__init__()
        self.u = nn.ModuleList([nn.ModuleList([Fused(), Plain()]) for _ in "ab"])

    def forward(self, x):
        """Run the parts of each block."""
        for attend, feed in self.u:
            x = attend(x) + x
            x = feed(x) + x
        return x


class BlocksOfLists(nn.Module):
    """Blocks that hold such a list, and add what its parts compute."""

    def __init__(self):
        super().__init__()
        self.u = nn.ModuleList([Listed(), Listed()])

    def forward(self, x):
        """Run the blocks."""
        for block in self.u:
            x = block(x)
        return x


class Listed(nn.Module):
    """A list of an attention and a feed-forward network."""

    def __init__(self):
        super().__init__()
        self.w = nn.ModuleList([Fused(), Plain()])
        self.n = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])

    def forward(self, x):
        """Add what each part computes."""
        for norm, part in zip(self.n, self.w, strict=True):
            x = x + part(norm(x))
        return x


class Flat(nn.Module):
    """Attentions and feed-forward networks by turns in one list."""

    def __init__(self):
        super().__init__()
        self.u = nn.ModuleList([Fused(), Plain(), Fused(), Plain()])

    def forward(self, x):
        """Add what each part computes."""
        for part in self.u:
            x = x + part(F.layer_norm(x, (WIDTH,)))
        return x


LISTS = {Pairs: ("u.1.0.", "u.1.1."), BlocksOfLists: ("u.1.w.0.", "u.1.w.1."), Flat: ("u.2.", "u.3.")}

# --- quantised linears ----------------------------------------------------------------------------------------------


class Params4bit(nn.Parameter):
    """A packed parameter with what is needed to unpack it, as bitsandbytes has it."""

    def __new__(cls, data, quant_state):
        """Keep the state beside the data."""
        made = torch.Tensor._make_subclass(cls, data, require_grad=False)
        made.quant_state = quant_state
        return made


def kernel(x, *_):
    """Raise as a compiled kernel does that has no meta version."""
    raise NotImplementedError(f"Could not run 'kernel' with arguments from the {x.device.type} backend.")


class Linear4bit(nn.Linear):
    """Of bitsandbytes: a flat packed weight, and a kernel."""

    def __init__(self, read, written):
        super().__init__(read, written)
        self.weight = Params4bit(torch.zeros(read * written // 2, 1, dtype=torch.uint8), {"blocksize": 64})

    def forward(self, x):
        """Call the kernel."""
        return kernel(x, self.weight.t(), self.weight.quant_state) + self.bias


class Linear8bitLt(nn.Linear):
    """Of bitsandbytes: integers in the weight's own shape, and a kernel."""

    def __init__(self, read, written):
        super().__init__(read, written)
        self.weight = nn.Parameter(torch.zeros(written, read, dtype=torch.int8), requires_grad=False)

    def forward(self, x):
        """Call the kernel."""
        return kernel(x, self.weight)


class QBytes(torch.Tensor):
    """A weight that looks like a matrix of floats and is packed, as that of quanto and torchao."""

    @staticmethod
    def __new__(cls, shape):
        """Make a tensor without storage of its own."""
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=torch.float32, requires_grad=False)

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        """Multiply by a kernel, and nothing else."""
        if func is F.linear:
            return kernel(*args)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        """Keep what torch's modules do to a parameter."""
        if func in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            return cls(args[0].shape)
        raise NotImplementedError(str(func))


class QLinear(nn.Linear):
    """Of quanto: a frozen weight of its own class, which the forward checks for."""

    def __init__(self, read, written):
        super().__init__(read, written)
        self.weight = nn.Parameter(QBytes((written, read)), requires_grad=False)

    def forward(self, x):
        """Multiply with the packed weight, or pack it."""
        weight = self.weight if isinstance(self.weight, QBytes) else kernel(self.weight)
        return F.linear(x, weight, self.bias)


class Unfrozen(nn.Linear):
    """Of quanto before it is frozen: a plain weight, packed at each call by a kernel."""

    def forward(self, x):
        """Pack the weight and multiply."""
        return F.linear(x, kernel(self.weight), self.bias)


class TorchAo(nn.Linear):
    """Of torchao: a plain linear with a weight of another class."""

    def __init__(self, read, written):
        super().__init__(read, written)
        self.weight = nn.Parameter(QBytes((written, read)), requires_grad=False)


class Gptq(nn.Module):
    """Of GPTQ and AWQ: no linear by class, the weight packed into buffers."""

    def __init__(self, read, written):
        super().__init__()
        self.in_features, self.out_features = read, written
        self.register_buffer("qweight", torch.zeros(read // 8, written, dtype=torch.int32))
        self.register_buffer("scales", torch.zeros(1, written))

    def forward(self, x):
        """Call the kernel."""
        return kernel(x, self.qweight, self.scales)


class Float8(nn.Linear):
    """Of a checkpoint in eight bits: a weight in a dtype that only kernels multiply with."""

    def __init__(self, read, written):
        super().__init__(read, written, bias=False)
        self.weight = nn.Parameter(torch.zeros(written, read).to(torch.float8_e4m3fn), requires_grad=False)

    def forward(self, x):
        """Call the kernel."""
        return kernel(x, self.weight)


QUANTISED = [Linear4bit, Linear8bitLt, QLinear, Unfrozen, TorchAo, Gptq, Float8]


def quantised(linear):
    """Return two blocks of attention and feed-forward network with all linears of one class."""
    model = nn.Sequential(Parallel(), Parallel())
    for module in [*model.modules()]:
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, linear(child.in_features, child.out_features))
    return model


# --- weights without a linear -----------------------------------------------------------------------------------------


class Bare(nn.Module):
    """An attention whose weights are bare matrices of its own."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Parameter(torch.randn(WIDTH, WIDTH) / 9) for _ in range(4))

    @staticmethod
    def times(x, weight):
        """Multiply with a weight, inputs first."""
        return x @ weight

    def forward(self, x):
        """Attend."""
        query, key, value = (split(self.times(x, weight)) for weight in (self.b, self.d, self.a))
        return self.times(join(F.scaled_dot_product_attention(query, key, value)), self.c)


class BareLinear(Bare):
    """The same by torch's function, outputs first."""

    times = staticmethod(F.linear)


class BareEinsum(Bare):
    """The same in Einstein's notation."""

    times = staticmethod(lambda x, weight: torch.einsum("nlp,qp->nlq", x, weight))


class BareFeedForward(nn.Module):
    """A feed-forward network of two bare matrices, and a bias that is none."""

    def __init__(self):
        super().__init__()
        self.b = nn.Parameter(torch.randn(WIDTH, 2 * WIDTH) / 9)
        self.a = nn.Parameter(torch.randn(WIDTH, 2 * WIDTH) / 9)
        self.t = nn.Parameter(torch.zeros(5, WIDTH))

    def forward(self, x):
        """Widen, activate, narrow; add a row of a table that is no weight."""
        return F.gelu(x @ self.b) @ self.a.t() + self.t[2]


class OwnLinear(nn.Module):
    """A linear of a class of its own, that declares no features."""

    def __init__(self, read, written):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(read, written) / 9)

    def forward(self, x):
        """Multiply."""
        return x.matmul(self.weight)


class OwnLinears(Letters):
    """An attention of such linears."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (OwnLinear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x):
        """Attend."""
        return self.c(join(F.scaled_dot_product_attention(split(self.b(x)), split(self.d(x)), split(self.a(x)))))


class MixedAtTheEnd(Letters):
    """Heads that stand last while they are mixed, so that the softmax runs over the last dimension but one."""

    def __init__(self):
        super().__init__()
        self.e, self.g = nn.Linear(HEADS, HEADS), nn.Linear(HEADS, HEADS)

    def forward(self, x):
        """Mix, weigh, mix."""
        weights = self.e((split(self.b(x)) @ split(self.d(x)).transpose(-1, -2)).permute(0, 2, 3, 1)).softmax(2)
        return self.c(join(self.g(weights).permute(0, 3, 1, 2) @ split(self.a(x))))


class MixedAndTurned(MixedAtTheEnd):
    """The same with the keys in the rows."""

    def forward(self, x):
        """Mix, weigh, mix and turn."""
        weights = self.e((split(self.d(x)) @ split(self.b(x)).transpose(-1, -2)).permute(0, 2, 3, 1)).softmax(1)
        return self.c(join(self.g(weights).permute(0, 3, 2, 1) @ split(self.a(x))))


class FewerPositions(Letters):
    """Keys and values of fewer positions (Linformer, arXiv:2006.04768), by linears over the positions."""

    def __init__(self):
        super().__init__()
        self.e, self.g = nn.Linear(LENGTH, 5), nn.Linear(LENGTH, 5)

    def forward(self, x):
        """Project along the positions, then attend."""
        key, value = self.e(self.d(x).transpose(1, 2)).transpose(1, 2), self.g(self.a(x).mT).mT
        weights = (split(self.b(x)) @ split(key).transpose(-1, -2) / SIZE**0.5).softmax(-1)
        return self.c(join(weights @ split(value)))


class Competing(Letters):
    """Weights that are normalised over the queries, which compete for the keys (slot attention, arXiv:2006.15055)."""

    def __init__(self):
        super().__init__()
        self.slots = nn.Parameter(torch.randn(4, WIDTH))

    def forward(self, x):
        """Weigh by the softmax over the slots, then sum over the keys."""
        weights = (self.b(self.slots) @ self.d(x).transpose(1, 2) / WIDTH**0.5).softmax(1) + 1e-8
        found = (weights / weights.sum(-1, keepdim=True)) @ self.a(x)
        return self.c(found).mean(1, keepdim=True)


class Updated(nn.Module):
    """Slots that a recurrent cell r updates by what they attended to, before a feed-forward network e, g."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.d = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.r, self.e, self.g = nn.GRUCell(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        """Attend, update, then feed forward."""
        found = join(F.scaled_dot_product_attention(split(self.b(x)), split(self.d(x)), split(self.a(x))))
        state = self.r(found.flatten(0, 1), x.flatten(0, 1)).view_as(x)
        return state + self.g(self.e(state).relu())


class InDict(nn.Module):
    """An attention of matrices in a dictionary, beside linears for its output."""

    def __init__(self):
        super().__init__()
        self.w = nn.ParameterDict({name: torch.randn(WIDTH, WIDTH) / 9 for name in "abd"})
        self.c = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        """Attend."""
        query, key, value = (split(x @ self.w[name]) for name in "bda")
        return self.c(join(F.scaled_dot_product_attention(query, key, value)))


BARE = {Bare: "", BareLinear: "", BareEinsum: "", OwnLinears: ".weight"}


class MixedKernel(nn.Module):
    """A convolution whose kernel is a mix of several, one for each sample (CondConv, arXiv:1904.04971)."""

    def __init__(self):
        super().__init__()
        self.r = nn.Linear(WIDTH, 4)
        self.k = nn.Parameter(torch.randn(4, WIDTH * 3) / 9)

    def forward(self, x):
        """Mix the kernels by the pooled input, and convolve each sample with its own."""
        kernel = (self.r(x.mean(1)).sigmoid() @ self.k).view(-1, 1, 3)
        mixed = F.conv1d(x.transpose(1, 2).reshape(1, -1, x.shape[1]), kernel, padding=1, groups=kernel.shape[0])
        return mixed.view(x.shape[0], WIDTH, -1).transpose(1, 2)
