"""Checkpoints of ours and of the reference load; truncated, foreign and hostile ones are refused and run nothing."""

import builtins
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import asdict, replace

import pytest
import torch

from method_tvr.model import ModelConfig
from method_tvr.training.checkpoint import load_checkpoint, save_checkpoint, write_content
from tests.support.golden_files import read_bytes
from tests.support.runs.small_models import SMALL, small_batch, small_model
from utils.basic_utils import InputError


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.ckpt"
    save_checkpoint(path, small_model(), 3)
    return path


def test_a_saved_model_comes_back_the_same(saved):
    checkpoint = load_checkpoint(saved)
    assert (checkpoint.epoch, checkpoint.config) == (3, SMALL)
    assert checkpoint.made_by != "unknown"
    model = checkpoint.build_model()
    assert not model.training
    batch = small_batch(3)
    with torch.no_grad():
        found = model.encode_query(batch["query_feat"], batch["query_mask"])
        expected = small_model().eval().encode_query(batch["query_feat"], batch["query_mask"])
    assert all(torch.equal(found[m], expected[m]) for m in expected)


def test_ours_holds_plain_types_only(saved):
    content = torch.load(saved, weights_only=True)
    assert type(content["model_cfg"]) is dict
    assert ModelConfig(**content["model_cfg"]) == SMALL
    assert content["epoch"] == 3
    assert content["format_version"] == 1
    assert "made_by" in content


def test_files_say_nothing_of_later_settings_but_where_they_are_used(saved, tmp_path):
    assert "all_negatives" not in torch.load(saved, weights_only=True)["model_cfg"]
    config = replace(SMALL, all_negatives=True)
    save_checkpoint(tmp_path / "other.ckpt", small_model(config), epoch=1)
    assert load_checkpoint(tmp_path / "other.ckpt").config == config


def test_the_references_checkpoint_loads_unchanged(golden_checkpoint, tmp_path):
    path = tmp_path / "model.ckpt"
    path.write_bytes(read_bytes("run/model.ckpt"))
    with pytest.raises(pickle.UnpicklingError):  # its model_cfg is a pickled EasyDict
        torch.load(path, weights_only=True)
    assert golden_checkpoint.made_by == "unknown"
    assert golden_checkpoint.config.hidden_size == 32
    assert golden_checkpoint.epoch >= 0
    golden_checkpoint.build_model()


def test_names_that_data_parallel_training_has_lengthened_are_read(golden_checkpoint, tmp_path):
    content = {"model_cfg": asdict(golden_checkpoint.config), "epoch": 3}
    content["model"] = OrderedDict((f"module.{name}", tensor) for name, tensor in golden_checkpoint.state.items())
    torch.save(content, tmp_path / "model.ckpt")
    found = load_checkpoint(tmp_path / "model.ckpt")
    assert found.model_digest() == golden_checkpoint.model_digest()
    found.build_model()


@pytest.mark.parametrize(
    ("model_cfg", "said"),
    [
        ({"merge_two_stream": True}, "weights do not fit its model_cfg"),
        ({"merge_two_stream": True, "encoder_type": "gru"}, "encoder_type gru: encoders are transformers here"),
        ({"name": "moment_detr"}, "a model 'moment_detr', this code knows reloclnet, xml"),
    ],
)
def test_a_checkpoint_of_another_model_is_named(saved, model_cfg, said):
    content = torch.load(saved, weights_only=True)
    del content["digest"]
    content["model_cfg"] |= model_cfg
    torch.save(content, saved)
    with pytest.raises(InputError, match=said):
        load_checkpoint(saved)


def test_the_references_model_saved_by_us_is_the_same(golden_checkpoint, tmp_path):
    path = tmp_path / "ours.ckpt"
    save_checkpoint(path, golden_checkpoint.build_model(), golden_checkpoint.epoch)
    again = load_checkpoint(path)
    assert again.config == golden_checkpoint.config
    assert all(torch.equal(again.state[name], tensor) for name, tensor in golden_checkpoint.state.items())


class Runs:
    """Pickles as a call of `function(*args)`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def calls(marker) -> dict[str, Runs]:
    """Calls that would leave `marker` behind."""
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": Runs(os.system, f"touch {marker}"),
        "eval": Runs(builtins.eval, code.replace("open", "__import__('io').open")),
        "exec": Runs(builtins.exec, code),
        "open": Runs(open, str(marker), "w"),
        "torch.load": Runs(torch.load, str(marker)),
        "getattr": Runs(builtins.getattr, "x", "upper"),
        "nested": Runs(OrderedDict, [("x", Runs(os.system, f"touch {marker}"))]),
    }


CALLS = sorted(calls("x"))


def refuse(path, marker) -> str:
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    assert not marker.exists(), "the checkpoint ran code"
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("call", "where"),
    [*((call, "top") for call in CALLS), ("os.system", "model_cfg"), ("os.system", "model")],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_does_not(tmp_path, call, zipped, where):
    marker, path = tmp_path / "marker", tmp_path / "hostile.ckpt"
    hostile = calls(marker)[call]
    content = {"model": dict(small_model().state_dict()), "model_cfg": asdict(SMALL), "epoch": 0}
    if where == "top":
        content["extra"] = hostile
    else:
        content[where]["extra"] = hostile
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert "refused" in refuse(path, marker)


@pytest.mark.parametrize("call", CALLS)
def test_a_hostile_pickle_put_into_a_valid_checkpoint_is_refused(saved, tmp_path, call):
    marker, path = tmp_path / "marker", tmp_path / "hostile.ckpt"
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            hostile = pickle.dumps(calls(marker)[call])
            target.writestr(name, hostile if name.endswith("data.pkl") else source.read(name))
    assert "refused" in refuse(path, marker)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_bare_hostile_pickle_is_refused(tmp_path, call, protocol):
    marker, path = tmp_path / "marker", tmp_path / "hostile.ckpt"
    path.write_bytes(pickle.dumps(calls(marker)[call], protocol=protocol))
    refuse(path, marker)


def test_a_dotted_name_below_an_allowed_module_is_refused(tmp_path):
    # protocol 4 resolves attributes of attributes: torch._utils has many
    marker, path = tmp_path / "marker", tmp_path / "hostile.ckpt"
    path.write_bytes(b"\x80\x04\x8c\x0ctorch._utils\x8c\x0ftorch.os.system\x93\x8c\x01x\x85R.")
    assert "refused" in refuse(path, marker)


def test_a_truncated_checkpoint_is_refused_wherever_it_ends(saved, tmp_path):
    content = saved.read_bytes()
    path = tmp_path / "part.ckpt"
    for end in [0, 1, 3, 100, *range(len(content) // 9, len(content), len(content) // 9), len(content) - 1]:
        path.write_bytes(content[:end])
        refuse(path, tmp_path / "marker")


def test_a_truncated_checkpoint_of_the_old_form_is_refused(tmp_path):
    buffer = io.BytesIO()
    content = {"model": small_model().state_dict(), "model_cfg": asdict(SMALL), "epoch": 0}
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    path = tmp_path / "part.ckpt"
    path.write_bytes(buffer.getvalue())
    assert load_checkpoint(path).epoch == 0
    for share in (0.1, 0.5, 0.9, 0.999):
        path.write_bytes(buffer.getvalue()[: int(share * len(buffer.getvalue()))])
        refuse(path, tmp_path / "marker")


@pytest.mark.parametrize(
    "content", [b"", b"hello\n", b"\x89HDF\r\n\x1a\n" + bytes(200), b"{}", bytes(5000), b"PK\x03\x04" + bytes(300)]
)
def test_files_that_are_something_else_are_refused(tmp_path, content):
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    refuse(path, tmp_path / "marker")


def test_a_zip_of_something_else_is_refused(tmp_path):
    path = tmp_path / "model.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refuse(path, tmp_path / "marker")


class WritesAFile(torch.nn.Module):
    """TorchScript that creates the file named by `marker` when it is loaded."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker = marker
        self.content = torch.zeros(1)

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.marker, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.marker = state[0]
        self.training = state[1]
        self.content = torch.from_file(self.marker, True, 16, dtype=torch.uint8)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_torchscript_archive_is_refused_and_runs_nothing(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "model.ckpt"
    torch.jit.save(torch.jit.script(WritesAFile(str(marker))), str(path))
    torch.jit.load(str(path))
    assert marker.exists()
    marker.unlink()
    assert "refused" in refuse(path, marker)


def good() -> dict:
    return {"model": dict(small_model().state_dict()), "model_cfg": asdict(SMALL), "epoch": 0}


def without_a_weight(content):
    del content["model"]["query_encoder.self.query.weight"]


def with_a_surplus_weight(content):
    content["model"]["stranger"] = torch.zeros(1)


def with_another_shape(content):
    content["model_cfg"]["hidden_size"] = 16


def with_an_unusable_epoch(content):
    content["epoch"] = "soon"


def with_no_heads(content):
    content["model_cfg"]["n_heads"] = 0


def with_text_for_a_size(content):
    content["model_cfg"]["hidden_size"] = "large"


def with_text_for_a_weight(content):
    content["model"]["query_encoder.self.query.weight"] = "heavy"


def with_a_version_to_come(content):
    content["format_version"] = 99


@pytest.mark.parametrize(
    "spoil",
    [
        without_a_weight,
        with_a_surplus_weight,
        with_another_shape,
        with_an_unusable_epoch,
        with_no_heads,
        with_text_for_a_size,
        with_text_for_a_weight,
        with_a_version_to_come,
    ],
)
def test_content_that_does_not_fit_is_refused(tmp_path, spoil):
    content, path = good(), tmp_path / "model.ckpt"
    spoil(content)
    torch.save(content, path)
    refuse(path, tmp_path / "marker")


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], {}, {"model": {}}, {"state_dict": {}, "cfg": {}}, None])
def test_checkpoints_of_other_projects_are_refused(tmp_path, content):
    path = tmp_path / "model.ckpt"
    torch.save(content, path)
    assert "no checkpoint of a model that is known" in refuse(path, tmp_path / "marker")


def test_a_missing_checkpoint_is_said_to_be_missing(tmp_path):
    assert "not found" in refuse(tmp_path / "model.ckpt", tmp_path / "marker")


def test_weights_that_do_not_fit_are_named(tmp_path):
    content, path = good(), tmp_path / "model.ckpt"
    without_a_weight(content)
    torch.save(content, path)
    assert "query_encoder.self.query.weight" in refuse(path, tmp_path / "marker")


def test_ours_has_a_digest_that_is_checked(saved):
    content = torch.load(saved, weights_only=True)
    content["model"]["query_encoder.self.query.weight"][0, 0] += 1e-7
    torch.save(content, saved)
    with pytest.raises(InputError, match="does not have the digest") as caught:
        load_checkpoint(saved)
    assert str(saved) in str(caught.value)


@pytest.mark.parametrize("entry", ["epoch", "made_by", "model_cfg"])
def test_the_digest_covers_what_is_no_weight(saved, entry):
    content = torch.load(saved, weights_only=True)
    content[entry] = {**content[entry], "drop": 0.5} if entry == "model_cfg" else 7
    torch.save(content, saved)
    with pytest.raises(InputError, match="does not have the digest"):
        load_checkpoint(saved)


def test_a_checkpoint_without_a_digest_is_accepted(saved):
    content = torch.load(saved, weights_only=True)
    del content["digest"]
    torch.save(content, saved)
    assert load_checkpoint(saved).epoch == 3


def test_no_flipped_byte_goes_unnoticed(saved, tmp_path):
    whole, path = saved.read_bytes(), tmp_path / "flipped.ckpt"
    expected = load_checkpoint(saved)
    for position in range(5, len(whole), len(whole) // 40):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        try:
            found = load_checkpoint(path)
        except InputError:
            continue
        # what zip files keep twice, or what fills them up
        assert found.config == expected.config
        assert all(torch.equal(found.state[name], tensor) for name, tensor in expected.state.items())


def test_equal_models_are_equal_files(saved, tmp_path):
    again = tmp_path / "another name.ckpt"
    save_checkpoint(again, small_model(), 3)
    assert again.read_bytes() == saved.read_bytes()


def test_a_tensor_that_shows_more_than_the_file_has_is_refused(tmp_path):
    content, path = good(), tmp_path / "model.ckpt"
    content["extra"], content["digest"] = torch.zeros(1).expand(10**13), "0"
    torch.save(content, path)
    assert "stores fewer elements" in refuse(path, tmp_path / "marker")


def test_a_state_of_training_needs_a_digest(tmp_path):
    content, path = good() | {"training": {}}, tmp_path / "last.ckpt"
    torch.save(content, path)
    assert "does not have the digest" in refuse(path, tmp_path / "marker")
    write_content(path, content)
    assert load_checkpoint(path).training == {}


def test_what_weights_carry_besides_is_not_obeyed(tmp_path):
    content, path = good(), tmp_path / "model.ckpt"
    content["model"] = OrderedDict(content["model"])
    content["model"]._metadata = 3  # torch looks up versions there
    torch.save(content, path)
    load_checkpoint(path).build_model()
