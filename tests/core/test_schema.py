"""Records are their own JSON: written by the standard library, read and documented through pydantic."""

import json
import subprocess
import sys

import pytest
from records_zoo import make_scan, proposal
from shapes import documented, validator

from loradar.domain.architectures import Architecture
from loradar.domain.changes import REVISION_EXAMPLE, Revision
from loradar.domain.layers import Evidence, Layer
from loradar.domain.mappings import DETAIL_EXAMPLE, MAPPING_EXAMPLE, ArchitectureDetail, Mapping
from loradar.domain.scans import Scan
from loradar.domain.submissions import SUBMISSION_EXAMPLE, Submission
from loradar.schema import dump_json, from_json, to_json

EXAMPLES = [
    (Mapping, MAPPING_EXAMPLE),
    (Revision, REVISION_EXAMPLE),
    (Submission, SUBMISSION_EXAMPLE),
    (ArchitectureDetail, DETAIL_EXAMPLE),
]


@pytest.mark.parametrize(("record", "example"), EXAMPLES)
def test_a_record_survives_its_json_form(record, example):
    """Nested records, tuples and computed fields included; the form is the documented one."""
    body = json.loads(json.dumps(to_json(example)))
    assert documented(record, body) == example
    assert json.loads(dump_json(example)) == body


def test_both_writers_agree_on_a_scan():
    """``dump_json`` writes what ``to_json`` returns, without the module paths, which are not part of the JSON."""
    evidence = (Evidence("dataflow", "é: feeds the softmax"),)
    layers = [Layer("a.b", "linear", "Linear", (2, 4), 4, 2, role="head", evidence=evidence)]
    scan = make_scan(layers=layers, proposals=(proposal("b"),))
    body = to_json(scan)
    assert json.loads(dump_json(scan)) == body
    assert "module_paths" not in body
    assert body["layers"][0]["class"] == "Linear"
    assert list(body["layers"][0])[-6:] == ["confidence", "misfit", "live", "proof", "blocks", "evidence"]
    assert documented(Scan, body).layers == scan.layers


def test_unknown_fields_are_ignored_and_missing_ones_reported():
    """A newer service may send more; less is no record."""
    body = to_json(MAPPING_EXAMPLE)
    assert from_json(Mapping, {**body, "from_the_future": 1}) == MAPPING_EXAMPLE
    with pytest.raises(ValueError, match="architecture"):
        from_json(Mapping, {name: value for name, value in body.items() if name != "architecture"})


def test_a_schema_describes_its_fields():
    """Descriptions are the strings below the fields, under their JSON names; every field is required."""
    schema = validator(Architecture).schema
    assert schema["properties"]["class"]["description"] == "The model class that was scanned."
    assert schema["required"] == list(schema["properties"])
    assert schema["additionalProperties"] is False


@pytest.mark.usefixtures("seeded_settings")
def test_a_lookup_imports_no_pydantic():
    """Its import would take as long as the rest of the lookup."""
    code = "import sys, loradar; print(loradar.lookup('llama').to_dict()['preset'], 'pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert (done.stdout.strip(), done.returncode) == ("default False", 0), done.stderr
