"""Models of images and text are loaded from folders and from the hub's cache, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from tests.support.joint_models import tiny_joint_model
from tests.support.text_models import build_model
from utils.basic_utils import InputError
from utils.pretrained.joint_model import load_joint_model, source_of

COMMITS = ("1" * 40, "2" * 40)
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_joint_model(tmp_path_factory.mktemp("joint") / "clip", "clip")


@pytest.fixture
def hub(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A name in a cache of the hub, with two revisions of which the second is the newest; there is no network."""
    repository = tmp_path / "hub" / "models--someone--tiny-clip"
    (repository / "refs").mkdir(parents=True)
    shutil.copytree(clip, repository / "snapshots" / COMMITS[0])
    tiny_joint_model(repository / "snapshots" / COMMITS[1], "clip", seed=1)
    (repository / "refs" / "main").write_text(COMMITS[1])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return "someone/tiny-clip"


def test_names_on_the_hub_are_pinned_to_a_commit(clip: Path, hub: str) -> None:
    newest, older = load_joint_model(f"hf/{hub}"), load_joint_model(f"hf/{hub}@{COMMITS[0]}")
    assert (newest.name, newest.source.revision) == (hub, COMMITS[1])
    assert older.source.revision == COMMITS[0]
    assert older.digest == load_joint_model(str(clip)).digest != newest.digest
    assert newest.record(bf16=False)["revision"] == COMMITS[1]
    assert "revision" not in load_joint_model(str(clip)).record(bf16=False)


def test_a_revision_that_is_not_there_is_refused(hub: str) -> None:
    with pytest.raises(InputError, match=r"someone/tiny-clip: its configuration cannot be loaded"):
        load_joint_model(f"hf/{hub}@{'3' * 40}")


def test_the_weights_decide_the_digest_and_not_the_folder(clip: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(clip, tmp_path / "copy")
    assert load_joint_model(str(copy)).digest == load_joint_model(f"hf/{clip}").digest
    state = load_file(copy / WEIGHTS)
    save_file({**state, "logit_scale": state["logit_scale"] + 1}, copy / WEIGHTS, metadata={"format": "pt"})
    assert load_joint_model(str(copy)).digest != load_joint_model(str(clip)).digest


def cut_short(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])


def gone(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    gone(folder)


def incomplete(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    del state["visual_projection.weight"]
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def other_shape(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    state["visual_projection.weight"] = torch.zeros(3, 3)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def config_cut_short(folder: Path) -> None:
    (folder / "config.json").write_text((folder / "config.json").read_text()[:40])


def config_of_another_form(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


@pytest.mark.parametrize(
    "spoil", [config_of_another_form, cut_short, gone, pickled, incomplete, other_shape, no_config, config_cut_short]
)
def test_a_checkpoint_that_is_not_whole_is_one_clear_error(
    clip: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(shutil.copytree(clip, tmp_path / "spoilt"))
    with pytest.raises(InputError, match=r"spoilt: (its|has no)"):
        load_joint_model(f"hf/{tmp_path / 'spoilt'}")


def test_a_model_of_another_kind_is_named(tmp_path: Path) -> None:
    roberta = build_model(tmp_path / "roberta")
    assert source_of(str(roberta)).model_type == "roberta"
    with pytest.raises(InputError, match=r"is a roberta, not a model of images and text"):
        load_joint_model(str(roberta))
