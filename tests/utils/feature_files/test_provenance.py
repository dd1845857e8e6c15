"""Records of feature files: what they say, and when two of them contradict each other."""

import re
from collections import OrderedDict

import h5py
import numpy as np
import pytest
import torch

from utils.feature_files.feature_file import FeatureFile, new_feature_file
from utils.feature_files.provenance import (
    DECISIVE,
    contradictions,
    joined,
    made_from,
    made_with,
    properties,
    weights_digest,
)

RESNET = {"model": "resnet152", "weights": "0" * 16, "layer": "pool5", "clip_length": 1.5, "pooling": "max"}
I3D = {"model": "i3d", "weights": "1" * 16, "frame_rate": 15, "clip_length": 1.5, "pooling": "avg"}


def test_a_record_survives_the_file(tmp_path):
    made = made_with("utils/a.py", "video", ["numpy"], **RESNET, frame_rate=np.float32(3), gpu=False, max_length=None)
    with new_feature_file(tmp_path / "a.h5", **made) as features:
        features.put("v", np.ones((1, 2), np.float32))
    read = FeatureFile(tmp_path / "a.h5").made_by()
    assert properties(read) == {**RESNET, "frame_rate": 3.0}
    assert list(properties(read)) == [name for name in DECISIVE if name in made]
    assert {type(value) for value in properties(read).values()} == {str, float}
    assert read["made_by"] == "utils/a.py"
    assert read["kind"] == "video"
    assert not read["gpu"]
    assert "max_length" not in read


def test_versions_are_those_installed_and_absent_packages_are_left_out():
    assert made_with("a", "sub", ["numpy", "no-such-package", "h5py"])["versions"] == (
        f"numpy {np.__version__}, h5py {h5py.__version__}"
    )
    assert "versions" not in made_with("a", "sub", ["no-such-package"])


def test_versions_of_the_sources_are_kept():
    sources = [{"versions": "av 15.0, torch 2.5", "layer": "pool5"}, {"versions": 3}, {"versions": "torch 2.5"}]
    made = made_from(sources, "b", "video", ["numpy"], pooling="avg")
    assert made == {
        "made_by": "b",
        "kind": "video",
        "versions": f"av 15.0, torch 2.5, numpy {np.__version__}",
        "pooling": "avg",
    }
    assert "versions" not in made_from([{}], "b", "video", [])


def test_what_cannot_be_recorded_is_refused():
    with pytest.raises(ValueError, match="kind 'audio'"):
        made_with("a", "audio", [])
    with pytest.raises(TypeError, match="layer is a list"):
        made_with("a", "video", [], layer=[1])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "odd", [np.zeros(3), np.zeros(1), b"max", np.bytes_(b"max"), h5py.Empty("f4"), True, np.nan, -np.inf, 10**400, None]
)
def test_odd_attributes_count_as_unknown(odd):
    assert properties({"pooling": odd, "clip_length": np.float64(1.5)}) == {"clip_length": 1.5}


@pytest.mark.parametrize("text", ["", "x" * 201, "max\x1b[31m", "max\n"])
def test_text_that_is_no_name_counts_as_unknown(text):
    assert properties({"model": text}) == {}


def test_only_what_both_say_can_contradict():
    assert contradictions(RESNET, {}) == contradictions({}, RESNET) == contradictions(RESNET, RESNET) == []
    assert contradictions({**RESNET, "made_by": "a", "seed": 1}, {**RESNET, "made_by": "b", "seed": 2}) == []
    assert contradictions(RESNET, {**I3D, "layer": "pool5"}) == [
        ("model", "resnet152", "i3d"),
        ("weights", "0" * 16, "1" * 16),
        ("pooling", "max", "avg"),
    ]


def test_numbers_may_differ_by_rounding_but_not_from_text():
    assert contradictions({"clip_length": 0.1}, {"clip_length": np.float32(0.1)}) == []
    assert contradictions({"max_length": 30}, {"max_length": 30.0}) == []
    assert contradictions({"clip_length": 1.5}, {"clip_length": 2}) == [("clip_length", 1.5, 2)]
    assert contradictions({"layer": -2}, {"layer": "-2"}) == [("layer", -2, "-2")]


def test_halves_are_joined_with_a_plus_where_they_differ():
    assert joined(RESNET, I3D) == {
        "model": "resnet152+i3d",
        "weights": f"{'0' * 16}+{'1' * 16}",
        "clip_length": 1.5,
        "pooling": "max+avg",
    }
    assert joined({"frame_rate": 3.0}, {"frame_rate": 15})["frame_rate"] == "3+15"
    assert joined({"frame_rate": 3.0}, {"frame_rate": 3}) == {"frame_rate": 3.0}


def test_weights_have_a_digest_of_their_own():
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    digest = weights_digest(layer.state_dict())
    assert re.fullmatch("[0-9a-f]{16}", digest)
    state = layer.state_dict()
    assert digest == weights_digest(OrderedDict(reversed(list(state.items())))) == weights_digest(dict(state))
    with torch.no_grad():
        layer.bias[1] = torch.nextafter(layer.bias[1], torch.tensor(9.0))
    assert weights_digest(layer.state_dict()) != digest
