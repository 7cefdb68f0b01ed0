"""Parts of models: classes without a task, found beside their configuration."""

import copy
import sys
import warnings
from importlib import import_module

import pytest

from loradar.discovery.sources.transformers import build_part

CONFIGURATION = """
from transformers import PreTrainedConfig

class OddConfig(PreTrainedConfig):
    model_type = "odd"
"""

MODELING = """
import warnings
from torch import nn
from transformers import PreTrainedModel
from .configuration_odd import OddConfig

class OddModel(PreTrainedModel):
    config_class = OddConfig

    def __init__(self, config):
        super().__init__(config)
        self.first = nn.Linear(2, 2)
        warnings.warn("an odd one", stacklevel=1)  # Python adds a global to this module: __warningregistry__

class OddHead(PreTrainedModel):
    config_class = OddConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = OddModel(config)
        self.second = nn.Linear(2, 2)
"""


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """A package like those of transformers, with a model that warns when it is built."""
    package = tmp_path / "odd"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "configuration_odd.py").write_text(CONFIGURATION)
    (package / "modeling_odd.py").write_text(MODELING)
    monkeypatch.syspath_prepend(tmp_path)
    yield import_module("odd.configuration_odd").OddConfig()
    for name in [name for name in sys.modules if name.partition(".")[0] == "odd"]:
        del sys.modules[name]


def test_a_model_that_adds_a_global_to_its_file_is_built(odd):
    """A warning does, even one that is ignored: the classes of the file are listed before the first is built."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        built = build_part(odd, copy.deepcopy)
    assert type(built).__name__ == "OddHead"
