"""Forwards of several tensors, and of sizes that no configuration states."""

import pytest
import torch
from torch import nn
from torchvision.models.video import mvit_v1_b

from loradar.discovery import scan
from loradar.discovery.meta_run.running import compute_model


class Denoiser(nn.Module):
    """A noisy image and a time for each sample."""

    def __init__(self):
        """Build it."""
        super().__init__()
        self.stem, self.clock, self.out = nn.Conv2d(4, 8, 3, padding=1), nn.Linear(1, 8), nn.Conv2d(8, 4, 1)

    def forward(self, x, t):
        """Predict the noise."""
        return self.out(self.stem(x) + self.clock(t.float()[:, None])[:, :, None, None])


class Labelled(Denoiser):
    """The second argument is looked up."""

    def __init__(self):
        """Build it."""
        super().__init__()
        self.clock = nn.Embedding(10, 8)

    def forward(self, x, label):
        """Predict the noise of a class."""
        return self.out(self.stem(x) + self.clock(label)[:, :, None, None])


class Conditioned(Denoiser):
    """Of two numbers for each sample one is a time, taken in the precision it has, and one is looked up."""

    def __init__(self):
        """Build it."""
        super().__init__()
        self.style = nn.Embedding(1, 8)

    def forward(self, x, t, style):
        """Predict the noise of a style."""
        condition = self.clock(t.float()[:, None].to(t.dtype)) + self.style(style)
        return self.out(self.stem(x) + condition[:, :, None, None])


class Conformer(nn.Module):
    """Frames, and how many of them each sample has."""

    def __init__(self):
        """Build it."""
        super().__init__()
        self.layers = nn.ModuleList([nn.TransformerEncoderLayer(16, 2, 32, batch_first=True) for _ in range(2)])

    def forward(self, x, lengths):
        """Mask what is beyond the length."""
        beyond = torch.arange(int(lengths.max()))[None] >= lengths[:, None]
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=beyond)
        return x, lengths


class Pair(nn.Module):
    """An image and a text."""

    def __init__(self):
        """Build it."""
        super().__init__()
        self.seeing, self.reading = nn.Conv2d(3, 8, 4, stride=4), nn.Embedding(50, 8)

    def forward(self, picture, words):
        """Compare them."""
        return self.seeing(picture).mean((2, 3)) @ self.reading(words).mean(1).t()


class Separator(nn.Module):
    """A recording whose channels only an attribute states; its first layer takes a spectrogram."""

    def __init__(self):
        """Build it."""
        super().__init__()
        self.audio_channels = 2
        self.frequencies, self.waves = nn.Conv2d(4, 8, 1), nn.Conv1d(2, 8, 8, stride=4)
        self.back = nn.ConvTranspose1d(8, 2, 8, stride=4)

    def forward(self, wave):
        """Check what it is given."""
        if wave.ndim != 3:
            raise ValueError(f"Expected 3D tensor, found {tuple(wave.shape)}")
        if wave.shape[1] != self.audio_channels:
            raise ValueError("The channel dimension must match `audio_channels`")
        spectrum = self.frequencies(wave.repeat(1, 2, 1)[:, :, None])
        return self.back(self.waves(wave)), spectrum


@pytest.mark.parametrize("model", [Denoiser, Labelled, Conformer, Pair, Separator])
def test_every_argument_gets_a_shape(model):
    """Each is tried on its own."""
    scan(model(), method="dataflow")


def test_a_film_of_a_fixed_number_of_frames_is_found():
    """The table of positions fits sixteen frames alone."""
    with torch.device("meta"):
        model = mvit_v1_b(num_classes=3)
    found = scan(model, method="dataflow")
    assert found.propose("LORA", "default").matched == 16


def test_of_two_numbers_for_each_sample_the_time_alone_becomes_a_float():
    """On meta both run as integers; with real numbers an embedding takes no float, and a linear no integer."""
    computed = []
    runs = compute_model(Conditioned(), lambda forward: computed.append(forward()))
    assert runs[-1].error is None
    assert computed[-1].isfinite().all()


class MixesTokens(nn.Module):
    """Mixes forty-nine tokens by a linear over them, and nothing else says how many there are."""

    def __init__(self):
        """Build it."""
        super().__init__()
        self.enter = nn.Linear(10, 16)
        self.mixers = nn.ModuleList(nn.ModuleList([nn.Linear(49, 64), nn.Linear(64, 49)]) for _ in range(2))

    def forward(self, features):
        """Mix them."""
        x = self.enter(features)
        for up, down in self.mixers:
            x = x + down(up(x.transpose(1, 2)).relu()).transpose(1, 2)
        return x


class MixesFewTokens(MixesTokens):
    """Takes words, of which there are fewer than usual."""

    def __init__(self):
        """Build it."""
        super().__init__()
        self.enter = nn.Embedding(9, 16)
        self.mixers = nn.ModuleList(nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 6)]) for _ in range(2))

    def forward(self, tokens):
        """Mix them."""
        return super().forward(tokens)


@pytest.mark.parametrize("model", [MixesTokens, MixesFewTokens])
def test_a_layer_over_the_tokens_says_how_many_there_are(model):
    """Its width is no width of features: the search takes the size that it fails with for the one to change."""
    found = scan(model(), method="dataflow")
    assert found.untraced == ()
    assert {x.role for x in found.layers if x.path.startswith("mixers")} == {"mlp.up", "mlp.down"}


class Table(nn.Module):
    """Rows of a table, whose columns are normalised, so that a row has no positions."""

    def __init__(self):
        """Build it."""
        super().__init__()
        self.norm, self.deep, self.out = nn.BatchNorm1d(10), nn.Linear(10, 16), nn.Linear(16, 2)

    def forward(self, rows):
        """Classify each row."""
        return self.out(self.deep(self.norm(rows)).relu())


class Hyper(nn.Module):
    """A network writes another one's weights, for each sample its own (arXiv:1609.09106)."""

    def __init__(self):
        """Build it."""
        super().__init__()
        self.trunk, self.main, self.weights = nn.Linear(6, 16), nn.Linear(8, 8), nn.Linear(16, 40)

    def forward(self, x, context):
        """Return five numbers for each sample."""
        weights = self.weights(self.trunk(context).relu()).view(-1, 5, 8)
        return torch.bmm(weights, self.main(x).relu().unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize("model", [Table, Hyper])
def test_a_sample_may_be_one_vector(model):
    """Neither a position nor a time of anything."""
    assert scan(model()).method == "dataflow"
