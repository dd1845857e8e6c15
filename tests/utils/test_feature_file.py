"""Feature files are written whole and read with checks."""

import multiprocessing
import pickle

import h5py
import numpy as np
import pytest

from utils.basic_utils import InputError
from utils.feature_file import FeatureFile, new_feature_file


def rows(n: int = 4, size: int = 3) -> np.ndarray:
    return np.arange(n * size, dtype=np.float32).reshape(n, size)


@pytest.fixture
def path(tmp_path):
    with new_feature_file(tmp_path / "a.h5", made_by="a test", clip_length=1.5) as features:
        features.put("video", rows())
        features.put("video-mask", np.ones(4, dtype=np.float32))
        features.put("double", rows().astype(np.float64))
        features.put("half", rows().astype(np.float16))
    return tmp_path / "a.h5"


def test_features_come_back_as_float32(path):
    features = FeatureFile(path)
    for key in ("video", "double", "half"):
        assert features.read(key).dtype == np.float32
        np.testing.assert_array_equal(features.read(key, width=3), rows())
    assert features.width() == 3
    assert features.shape("video-mask") == (4,)
    assert set(features.keys()) == {"video", "video-mask", "double", "half"}
    assert features.missing(["video", "other"]) == ["other"]


def test_a_file_says_what_made_it(path):
    made_by = FeatureFile(path).made_by()
    assert made_by == {"format_version": 1, "made_by": "a test", "clip_length": 1.5}


def test_files_that_say_nothing_are_read_too(tmp_path):
    with h5py.File(tmp_path / "old.h5", "w") as h5_file:
        h5_file["video"] = rows()
    features = FeatureFile(tmp_path / "old.h5")
    assert features.made_by() == {}
    np.testing.assert_array_equal(features.read("video"), rows())


def test_an_error_leaves_the_old_file(path):
    before = path.read_bytes()

    def fail() -> None:
        with new_feature_file(path) as features:
            features.put("video", rows())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == before
    assert [found.name for found in path.parent.iterdir()] == ["a.h5"]


def test_missing_keys_are_named(path):
    with pytest.raises(InputError, match=r"a\.h5: has no features for other"):
        FeatureFile(path).read("other")


def test_another_width_is_refused_with_both_numbers(path):
    with pytest.raises(InputError, match=r"a\.h5, key video: features are 3 wide, expected 5"):
        FeatureFile(path).read("video", width=5)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3), np.float32),
        np.zeros(3, np.float32),
        np.zeros((2, 3, 4), np.float32),
        np.zeros((2, 3), np.int64),
        np.float32(1),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path, array):
    with h5py.File(tmp_path / "a.h5", "w") as h5_file:
        h5_file["video"] = array
    with pytest.raises(InputError, match=r"a\.h5, key video: expected floats"):
        FeatureFile(tmp_path / "a.h5").read("video")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
    array = rows()
    array[-1, -1] = value
    with new_feature_file(tmp_path / "a.h5") as features:
        features.put("video", array)
    with pytest.raises(InputError, match=r"a\.h5, key video: holds NaN or Inf"):
        FeatureFile(tmp_path / "a.h5").read("video")


def test_groups_are_no_features(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as h5_file:
        h5_file.create_group("video")
    with pytest.raises(InputError, match=r"a\.h5, key video: is a Group"):
        FeatureFile(tmp_path / "a.h5").read("video")


def test_a_file_without_features_has_no_width(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as h5_file:
        h5_file["video-mask"] = np.ones(3)
    with pytest.raises(InputError, match="holds no feature array"):
        FeatureFile(tmp_path / "a.h5").width()


def test_a_missing_file_comes_with_a_remedy(tmp_path):
    with pytest.raises(InputError, match=r"gone\.h5: feature file not found.*data/check\.sh"):
        FeatureFile(tmp_path / "gone.h5")


def test_truncated_and_foreign_files_are_refused(path):
    whole = path.read_bytes()
    for content in (b"", b"no h5 at all", whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.h5: cannot be opened as h5"):
            FeatureFile(path)


def test_damaged_values_are_refused_by_key(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as h5_file:
        dataset = h5_file.create_dataset("video", data=rows(), chunks=(4, 3), fletcher32=True)
        offset = dataset.id.get_chunk_info(0).byte_offset
    damaged = bytearray(path.read_bytes())
    damaged[offset] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"a\.h5, key video: cannot be read .*the file is damaged"):
        FeatureFile(path).read("video")


def read_elsewhere(features: FeatureFile, answers) -> None:
    answers.put(features.read("video").sum())


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_workers_can_read_what_was_opened_before_them(path, start):
    features = FeatureFile(path)
    features.read("video")
    context = multiprocessing.get_context(start)
    answers = context.SimpleQueue()
    worker = context.Process(target=read_elsewhere, args=(features, answers))
    worker.start()
    assert answers.get() == rows().sum()
    worker.join()
    assert worker.exitcode == 0


def test_a_pickled_reader_opens_the_file_again(path):
    again = pickle.loads(pickle.dumps(FeatureFile(path)))
    np.testing.assert_array_equal(again.read("video"), rows())
