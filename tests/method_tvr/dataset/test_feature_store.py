"""Features are sampled, normalised and completed as in the reference, and checked on the way."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from method_tvr.dataset.annotations import Query
from method_tvr.dataset.feature_store import FeatureStore, l2_normalize, temporal_endpoint_features, uniform_sampling
from tests.support.golden_files import load_npz
from utils.basic_utils import InputError
from utils.feature_files.feature_file import new_feature_file

COMPONENTS = load_npz("components.npz")
SIZES = {"video": 5, "sub": 4, "query": 3}


def rows(n: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, size)).astype(np.float32)


@pytest.fixture
def files(tmp_path):
    with new_feature_file(tmp_path / "video.h5") as video, new_feature_file(tmp_path / "sub.h5") as sub:
        for name, n_clips in (("short", 3), ("long", 25)):
            video.put(name, rows(n_clips, 5, seed=1))
            sub.put(name, rows(n_clips, 4, seed=2))
        sub.put("short-mask", np.ones(3, dtype=np.float32))
        video.put("odd", rows(7, 5))
        sub.put("odd", rows(8, 4))
    with new_feature_file(tmp_path / "query.h5") as query:
        query.put("7", rows(9, 3, seed=3))
    return tmp_path


def store(files, use_tef=True, normalize=True, sizes=SIZES) -> FeatureStore:
    return FeatureStore(
        {m: files / f"{m}.h5" for m in ("video", "sub")},
        files / "query.h5",
        normalize=dict.fromkeys(("video", "sub", "query"), normalize),
        max_ctx_l=10,
        max_desc_l=6,
        use_tef=use_tef,
        sizes=sizes,
    )


@pytest.mark.parametrize("max_len", [50, 128])
def test_sampling_agrees_with_the_reference(max_len):
    found = uniform_sampling(COMPONENTS["sampling/in"], max_len)
    np.testing.assert_allclose(found, COMPONENTS[f"sampling/out_{max_len}"], rtol=0, atol=1e-6)


def test_normalisation_agrees_with_the_reference():
    found = l2_normalize(COMPONENTS["sampling/in"])
    np.testing.assert_allclose(found, COMPONENTS["l2norm/out"], rtol=0, atol=1e-6)


@given(st.integers(1, 300), st.integers(1, 150))
def test_sampling_averages_between_rounded_bounds(n, max_len):
    features = np.arange(n, dtype=np.float64)[:, None]
    found = uniform_sampling(features, max_len)
    if n <= max_len:
        assert found is features
        return
    bounds = [min(round(Fraction(i * n, max_len)), n - 1) for i in range(max_len + 1)]  # half to even
    assert len(found) == max_len
    for i, value in enumerate(found[:, 0]):
        start, end = bounds[i : i + 2]
        expected = sum(range(start, end)) / (end - start) if end > start else start
        # float64 cannot tell some halves that fractions can: a bound may then be one clip off
        assert value == pytest.approx(expected, abs=1.0)
        if all((Fraction(j * n, max_len) * 2) % 2 != 1 for j in (i, i + 1)):
            assert value == pytest.approx(expected)


def test_silent_clips_stay_zero():
    assert not l2_normalize(np.zeros((2, 3), dtype=np.float32)).any()


def test_tef_says_where_a_clip_starts_and_ends():
    np.testing.assert_allclose(temporal_endpoint_features(4), [[0, 0.25], [0.25, 0.5], [0.5, 0.75], [0.75, 1]])
    assert temporal_endpoint_features(3).dtype == np.float32


def test_clips_are_normalised_and_end_in_tef(files):
    found = store(files).context("short")
    for m, size, seed in (("video", 5, 1), ("sub", 4, 2)):
        raw = rows(3, size, seed=seed)
        np.testing.assert_allclose(found[m][:, :size], raw / (np.linalg.norm(raw, axis=1, keepdims=True) + 1e-5))
        np.testing.assert_array_equal(found[m][:, size:], temporal_endpoint_features(3))
        assert found[m].dtype == np.float32


def test_long_videos_are_sampled_before_they_are_normalised(files):
    found = store(files, use_tef=False).context("long")["video"]
    np.testing.assert_allclose(found, l2_normalize(uniform_sampling(rows(25, 5, seed=1), 10)), rtol=1e-6)
    assert found.shape == (10, 5)


def test_tef_of_a_long_video_counts_its_sampled_clips(files):
    np.testing.assert_array_equal(store(files).context("long")["sub"][:, 4:], temporal_endpoint_features(10))


def test_normalisation_can_be_left_out(files):
    features = store(files, normalize=False, use_tef=False)
    np.testing.assert_array_equal(features.context("short")["video"], rows(3, 5, seed=1))
    np.testing.assert_array_equal(features.query(7), rows(9, 3, seed=3)[:6])


def test_queries_are_cut_to_their_first_tokens(files):
    np.testing.assert_allclose(store(files).query(7), l2_normalize(rows(9, 3, seed=3)[:6]))


def test_sizes_are_read_from_the_files_when_left_out(files):
    assert store(files, sizes={}).sizes == SIZES
    assert store(files, sizes={"video": None, "sub": None, "query": None}).sizes == SIZES


def test_sizes_that_the_files_do_not_have_are_refused(files):
    with pytest.raises(InputError, match=r"video\.h5.*5 wide, but the options say 6"):
        store(files, sizes={**SIZES, "video": 6})


def test_a_video_of_another_width_is_refused_by_name(files):
    with new_feature_file(files / "sub.h5") as sub:
        sub.put("long", rows(25, 4))
        sub.put("short", rows(3, 9))
    with pytest.raises(InputError, match=r"sub\.h5, key short: features are 9 wide, expected 4"):
        store(files).context("short")


def test_modalities_of_different_lengths_are_refused_with_the_videos_name(files):
    with pytest.raises(InputError, match=r"odd.*7 in .*video\.h5.*8 in .*sub\.h5"):
        store(files).context("odd")


def test_missing_features_are_named_with_the_line_that_needs_them(files):
    queries = [Query(7, "there", 1), Query(90200, "missing", 17), Query(90201, "missing", 18)]
    with pytest.raises(InputError, match=r"query\.h5.*desc_id 90200.*line 17 of tvr_val.jsonl.*1 more"):
        store(files).require(queries, ["short"], "data/tvr_val.jsonl")
    with pytest.raises(InputError, match=r"video\.h5.*2 of 3 videos: gone_1, gone_2"):
        store(files).require(queries[:1], ["short", "gone_1", "gone_2", "gone_1"], "data/tvr_val.jsonl")
    store(files).require(queries[:1], ["short", "long"], "data/tvr_val.jsonl")


def test_files_that_do_not_say_what_made_them_are_mentioned(files, capsys):
    with new_feature_file(files / "query.h5", made_by="a tool") as query:
        query.put("7", rows(9, 3))
    store(files).note_unknown_files()
    said = capsys.readouterr().err
    assert "video.h5" in said
    assert "query.h5" not in said
