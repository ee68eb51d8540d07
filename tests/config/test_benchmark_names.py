"""Names of suites in the report."""

import copy

import pytest
from relora_study.config import Evaluation, Report
from relora_study.config.benchmark_names import suite_name


@pytest.mark.parametrize(
    ("pairs", "name"),
    [
        ({"source": "path", "path": "somewhere/BLiMP.zip"}, "BLiMP (by name)"),  # which is not there
        ({"source": "path", "path": "blimp-project/zorro"}, "zorro"),
        ({"source": "hub", "path": "someone/blimp-nl"}, "blimp-nl"),
        ({"source": "hub"}, "BLiMP"),
        ({"source": "hub", "path": "nyu-mll/blimp"}, "BLiMP"),
        ({"source": "url"}, "BLiMP"),
        ({"source": "path", "path": "suites/zorro"}, "zorro"),
        ({"source": "templated"}, "the project's templated minimal pairs (not BLiMP)"),
    ],
)
def test_only_blimp_is_called_blimp(raw, pairs, name):
    raw = copy.deepcopy(raw["evaluation"])
    raw["minimal_pairs"] |= pairs
    assert suite_name(Evaluation.model_validate(raw), Report(title="", published="off")) == name
