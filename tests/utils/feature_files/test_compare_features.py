"""The comparison of two feature files finds every difference that was put in, and none where there is none."""

import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from tests.support.feature_files import write
from utils.basic_utils import PROJECT_ROOT, InputError
from utils.feature_files import compare_features
from utils.feature_files.compare_features import compare, report, row_cosines


def rows(n: int, size: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([n, size, seed]).normal(size=(n, size)).astype(np.float32)


@pytest.fixture
def pair(tmp_path):
    """Two files that differ in known ways."""
    a, b, c = rows(5), rows(6), rows(3, seed=1)
    silent = np.zeros((2, 4), np.float32)
    half_silent = c.copy()
    half_silent[0] = 0
    turned = b[:4].copy()
    turned[1] *= -1
    ours = {"a": a, "b": b, "c": c, "s": silent, "s-mask": np.zeros(2, np.float32), "x": a}
    theirs = {"a": a * 3, "b": turned, "c": half_silent, "s": silent, "y": a, "z": a}
    about = {"made_by": "utils/x.py", "versions": "torch 2.5", "clip_length": 1.5}
    return (
        write(tmp_path / "ours.h5", ours, **about, model="resnet152", pooling="max"),
        write(tmp_path / "theirs.h5", theirs, clip_length=np.float32(1.5), pooling="avg"),
    )


def test_cosines_are_those_of_the_rows():
    a, b = rows(20, 7), rows(20, 7, seed=1)
    expected = [float(np.dot(x, y) / (np.linalg.norm(x) * np.linalg.norm(y))) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(row_cosines(a, b), expected, rtol=1e-5)
    np.testing.assert_allclose(row_cosines(a, a * 1e-20), 1, rtol=1e-6)  # too small to be multiplied in float32
    a[3] = b[3] = b[4] = 0
    assert np.isnan(row_cosines(a, b)[3])
    assert row_cosines(a, b)[4] == 0


def test_every_difference_is_found(pair):
    found = compare(*pair)
    assert (found.only_ours, found.only_theirs) == (["x"], ["y", "z"])
    assert (found.widths, found.n_keys) == ((4, 4), (5, 6))
    assert found.lengths == {"b": (6, 4)}
    assert found.cosine_of["a"] == pytest.approx(1)
    assert found.cosine_of["b"] == pytest.approx(0.5)  # one of four rows is turned around
    assert found.cosine_of["c"] == pytest.approx(2 / 3)
    assert found.cosine_of["s"] is None
    assert (found.n_both_zero, found.n_one_zero, len(found.cosines)) == (2, 1, 5 + 4 + 3)
    np.testing.assert_allclose(found.norms[:5, 1], 3 * found.norms[:5, 0], rtol=1e-6)
    assert found.largest_difference == pytest.approx(max(2 * np.abs(rows(5)).max(), 2 * np.abs(rows(6)[1]).max()))
    assert [key for key, _ in found.worst] == ["b", "c", "a"]
    assert found.differing_properties == [("pooling", "max", "avg")]


def test_equal_files_differ_in_nothing(pair):
    found = compare(pair[0], pair[0])
    assert (found.only_ours, found.only_theirs) == ([], [])
    assert (found.lengths, found.differing_properties, found.largest_difference) == ({}, [], 0)
    np.testing.assert_allclose(found.cosines, 1)


def test_the_table_says_it_all(pair):
    lines = report(compare(*pair)).splitlines()
    words = [line.split() for line in lines]
    assert ["pooling", "max", "avg", "differs"] in words
    assert ["clip_length", "1.5", "1.5"] in words
    assert ["model", "resnet152", "not", "known"] in words
    assert ["keys", "5", "6"] in words
    assert "only in ours: x" in lines
    assert "only in theirs: y, z" in lines
    assert "numbers of rows differ: b (6 and 4); by 2 on average" in lines
    assert next(line for line in words if line[:1] == ["cosine"])[2] == "-1"
    assert ["b", "0.5"] in words


def test_other_sizes_are_told_without_cosines(pair, tmp_path):
    wide = write(tmp_path / "wide.h5", {"a": rows(5, 6), "b": rows(4, 6)})
    found = compare(pair[0], wide)
    assert (found.widths, found.lengths, found.cosine_of) == ((4, 6), {"b": (6, 4)}, {})
    assert "sizes differ" in report(found)
    assert found.to_plain()["cosine"] is None


def test_the_command_prints_a_table_and_writes_json(pair, tmp_path):
    env = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    command = ["bash", str(PROJECT_ROOT / "utils/compare_features.sh"), *map(str, pair), "--json", "out.json"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "lowest mean cosine" in done.stdout
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["lengths"] == {"b": [6, 4]}
    assert content["cosine"]["min"] == pytest.approx(-1)
    assert content["cosine_of"]["s"] is None
    assert content["differing_properties"] == [["pooling", "max", "avg"]]
    assert content["ours"]["record"]["versions"] == "torch 2.5"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "feature file not found"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "truncated or not h5"),
        (lambda path: write(path, {"other": rows(3)}), r"no key in common \(such as a and other\)"),
        (lambda path: write(path, {"a": rows(3)[0]}), "holds no feature array"),
        (lambda path: write(path, {"a": np.full((5, 4), np.nan, np.float32)}), "theirs.h5, key a: holds NaN"),
    ],
)
def test_bad_input_ends_with_code_2_and_writes_nothing(pair, tmp_path, monkeypatch, capsys, spoil, message):
    spoil(pair[1])
    with pytest.raises(InputError, match=message):
        compare(*pair)
    monkeypatch.setattr(sys, "argv", ["x", *map(str, pair), "--json", str(tmp_path / "out.json")])
    with pytest.raises(SystemExit) as stop:
        compare_features.main()
    assert stop.value.code == 2
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_keys_that_cannot_be_printed_are_printed_all_the_same(tmp_path):
    path = write(tmp_path / "odd.h5", {"a\x1b[31m": rows(3)})
    with h5py.File(path, "r+") as file:
        file[b"\xff"] = rows(2)
    found = compare(path, path)
    assert set(found.cosine_of) == {r"a\x1b[31m", r"\udcff"}
    report(found).encode()
    json.dumps(found.to_plain())
