"""Feature files are written whole and read with checks."""

import multiprocessing
import os
import pickle
import tracemalloc

import h5py
import numpy as np
import pytest

from utils.basic_utils import InputError
from utils.feature_files.feature_file import FeatureError, FeatureFile, new_feature_file


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


def external_link(h5_file):
    h5_file["video"] = h5py.ExternalLink("pipe", "x")


def soft_link(h5_file):
    h5_file["video"] = h5py.SoftLink("/there")


def virtual(h5_file):
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource("pipe", "x", shape=(4, 3))
    h5_file.create_virtual_dataset("video", layout)


def virtual_without_end(h5_file):
    """Its shape is that of the source, which asking for the shape would open."""
    layout = h5py.VirtualLayout((4, 3), "f4", maxshape=(None, 3))
    source = h5py.VirtualSource("pipe", "x", shape=(4, 3), maxshape=(None, 3))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    h5_file.create_virtual_dataset("video", layout)


def external_storage(h5_file):
    h5_file.create_dataset("video", (4, 3), "f4", external=[("pipe", 0, h5py.h5f.UNLIMITED)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (external_link, "is a link"),
        (soft_link, "is a link"),
        (virtual, "values in other files"),
        (virtual_without_end, "values in other files"),
        (external_storage, "values in other files"),
    ],
)
def test_nothing_outside_the_file_is_opened(tmp_path, make, message):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait forever
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as h5_file:
        h5_file["there"] = rows()
        make(h5_file)
    features = FeatureFile(tmp_path / "a.h5")
    assert features.keys() == ["there", "video"]
    for ask in (features.read, features.form, features.shape):
        with pytest.raises(FeatureError, match=message):
            ask("video")
    np.testing.assert_array_equal(features.read("there"), rows())


@pytest.mark.parametrize("key", ["group/video", "/there", "group/../there", ".", "", "\0", "\udcff"])
def test_keys_are_names_and_no_paths(tmp_path, key):
    with h5py.File(tmp_path / "a.h5", "w") as h5_file:
        h5_file["there"] = rows()
        h5_file["group/video"] = rows()
    with pytest.raises(InputError, match=r"a\.h5"):
        FeatureFile(tmp_path / "a.h5").read(key)


def test_names_that_are_not_utf8_are_names_too(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as h5_file:
        space = h5py.h5s.create_simple((4, 3))
        h5py.h5d.create(h5_file.id, b"\xff", h5py.h5t.IEEE_F32LE, space).write(h5py.h5s.ALL, h5py.h5s.ALL, rows())
    features = FeatureFile(tmp_path / "a.h5")
    (key,) = features.keys()
    np.testing.assert_array_equal(features.read(key), rows())


COMPOUND = np.dtype([("a", "f4")])


@pytest.mark.parametrize(
    "dtype",
    [COMPOUND, np.complex64, np.bool_, "S4", h5py.string_dtype(), h5py.vlen_dtype(np.float32), h5py.ref_dtype],
)
def test_types_that_are_no_floats_are_refused_unread(tmp_path, dtype):
    with h5py.File(tmp_path / "a.h5", "w") as h5_file:
        h5_file.create_dataset("video", (4, 3), dtype)
    with pytest.raises(FeatureError, match="expected floats"):
        FeatureFile(tmp_path / "a.h5").read("video")


def unallocated(h5_file):
    h5_file.create_dataset("video", (1 << 40, 3), "f4")


def compressed(h5_file):
    h5_file.create_dataset("video", (1 << 24, 1 << 10), "f4", compression="gzip")[:9] = 1


def in_a_huge_chunk(h5_file):
    h5_file.create_dataset("video", (4, 3), "f4", chunks=(1 << 14, 1 << 14), maxshape=(None, None))


def wide(h5_file):
    h5_file.create_dataset("video", (1, 1 << 18), "f4")


def compressed_twice(h5_file):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((4, 3))
    properties.set_deflate(9)
    properties.set_deflate(9)
    space = h5py.h5s.create_simple((4, 3))
    h5py.h5d.create(h5_file.id, b"video", h5py.h5t.IEEE_F32LE, space, dcpl=properties)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (unallocated, "claims .* MiB"),
        (compressed, "claims .* MiB"),
        (in_a_huge_chunk, "claims .* MiB"),
        (wide, "expected at most"),
        (compressed_twice, "more than once"),
    ],
)
def test_shapes_that_the_file_cannot_hold_are_refused_before_memory_is_taken(tmp_path, make, message):
    with h5py.File(tmp_path / "a.h5", "w") as h5_file:
        make(h5_file)
    tracemalloc.start()
    with pytest.raises(FeatureError, match=message):
        FeatureFile(tmp_path / "a.h5").read("video")
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


def test_the_width_of_a_model_is_no_absurd_one(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as h5_file:
        wide(h5_file)
    with pytest.raises(FeatureError, match="expected at most"):
        FeatureFile(tmp_path / "a.h5").width()


def test_silence_may_be_compressed_to_nothing(tmp_path):
    shape = (20_000, 768)  # eight hours of subtitles
    with h5py.File(tmp_path / "a.h5", "w") as h5_file:
        h5_file.create_dataset("video", shape, "f4", compression="gzip")[:1] = 0
    assert not FeatureFile(tmp_path / "a.h5").read("video").any()


def test_pipes_are_no_feature_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not found"):
        FeatureFile(tmp_path / "pipe")
