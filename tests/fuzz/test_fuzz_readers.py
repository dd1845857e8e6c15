"""A short fuzz of every reader; `tests/fuzz/campaign.py` is the long one.

Each input ends in a clear refusal or in a usable result: no other exception, no crash, no hang, no code that runs, no
file written elsewhere, no memory out of proportion.
"""

import contextlib
import os

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from method_tvr.config import parse_inference_options
from method_tvr.dataset.annotations import load_queries, load_videos
from standalone_eval.findings import Findings
from standalone_eval.ground_truth import read_ground_truth
from tests.fuzz.harness import fuzz
from tests.fuzz.readers import QUERIES, READERS, VIDEOS
from utils.basic_utils import InputError

INPUTS = {  # few are usable, or each takes long
    "features": 20,
    "feature_cache": 15,
    "training_state": 8,
    "checkpoint": 60,
    "submission": 60,
    "convert_lmdb_folder": 10,
}
OTHERS = 30
NOT_OURS = ("features",)  # inside the library of HDF5, which reads damaged files in this process


@pytest.mark.parametrize("name", READERS)
def test_hostile_inputs_are_refused_or_used(name):
    if name == "faiss_index":
        pytest.importorskip("faiss", reason="faiss is not installed (index_requirements.txt)")
    if name == "convert_lmdb_folder":
        pytest.importorskip("lmdb", reason="lmdb is not installed (utils/feature_forms/requirements.txt)")
    report = fuzz(name, first=0, count=INPUTS.get(name, OTHERS))
    findings = [what for _, what in report.findings if not (name in NOT_OURS and what.startswith("crash: SIG"))]
    assert not findings, findings[0]
    assert report.tried == INPUTS.get(name, OTHERS)
    assert report.outcomes["used"] > 0
    assert report.outcomes["refused"] > 0 or name == "feature_cache"  # what is refused there is made again


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
HYPOTHESIS = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def altered(data: st.DataObject, good: dict) -> dict:
    """A copy of a good object, some of whose values are anything."""
    changed = data.draw(st.lists(st.sampled_from(sorted(good)), max_size=2, unique=True))
    return good | {name: data.draw(anything) for name in changed}


@HYPOTHESIS
@given(st.data())
def test_any_annotations_and_durations_are_refused_or_used(tmp_path, data):
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(orjson.dumps(altered(data, row)) for row in QUERIES))
    (tmp_path / "a.json").write_bytes(orjson.dumps(altered(data, VIDEOS)))
    with contextlib.suppress(InputError):
        queries = load_queries(tmp_path / "a.jsonl", load_videos(tmp_path / "a.json"))
        assert len(queries) == len(QUERIES)


@HYPOTHESIS
@given(st.data())
def test_any_ground_truth_is_refused_or_used(data):
    findings = Findings()
    truth = read_ground_truth([altered(data, row) for row in QUERIES], findings)
    assert bool(findings.errors) == (truth is None)
    assert max(map(len, findings.lines()), default=0) < 500


@HYPOTHESIS
@given(st.data())
def test_any_options_are_refused_or_used(tmp_path, data):
    good = {"dset_name": "tvr", "exp_id": "x", "eval_split_name": "val", "hidden_size": 8, "vid_feat_path": "a.h5"}
    (tmp_path / "opt.json").write_bytes(orjson.dumps(altered(data, good)))
    try:
        opt = parse_inference_options(["--model_dir", str(tmp_path)])
    except InputError:
        return
    assert os.sep not in f"{opt.eval_id}{opt.eval_split_name}"
    assert opt.feature_cache_dir is None
