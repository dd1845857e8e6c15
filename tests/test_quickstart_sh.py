"""The quickstart from end to end, in a copy of the project with a tiny corpus."""

import json
import os
import shutil

import pytest

from tests.support.shell import PROJECT_ROOT, run_script
from utils.mini_tvr import TINY, generate

SMALL = ("--hidden_size", "8", "--n_heads", "2", "--n_epoch", "1", "--max_vcmr_video", "5")


def test_the_quickstart_leaves_a_model_predictions_a_table_and_a_picture(tmp_path):
    project = tmp_path / "a project"
    ignored = shutil.ignore_patterns("results")
    for folder in ("method_tvr", "utils", "standalone_eval"):
        shutil.copytree(PROJECT_ROOT / folder, project / folder, ignore=ignored)
    for name in ("setup.sh", "requirements.txt", "constraints.txt"):
        shutil.copy(PROJECT_ROOT / name, project)
    generate(project / "data" / "mini", TINY)
    results = project / "method_tvr" / "results"
    another_run = results / "mini-video_sub_tef-quickstart-2999_01_01_00_00_00"  # a clock was set back
    another_run.mkdir(parents=True)

    finished = run_script(project / "method_tvr/scripts/quickstart.sh", *SMALL, cwd=tmp_path)

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert os.listdir(another_run) == []
    (model_dir,) = set(results.iterdir()) - {another_run}
    assert model_dir.name.startswith("mini-video_sub_tef-quickstart-")
    table = json.loads((model_dir / "quickstart_table.json").read_text())
    assert set(table["chance"]) == {"VCMR", "SVMR", "VR"}
    assert (model_dir / "quickstart.png").read_bytes().startswith(b"\x89PNG")
    assert (model_dir / "model.ckpt").exists()
    predictions = "inference_mini_val_quickstart_predictions_VCMR_SVMR_VR"
    for suffix in ("", "_metrics", "_nms_thd_0.5", "_nms_thd_0.5_metrics"):
        assert (model_dir / f"{predictions}{suffix}.json").exists()
    assert (model_dir / "quickstart_table.txt").read_text().strip() in finished.stdout


def test_a_video_only_model_gets_the_corpus_without_subtitles():
    finished = run_script("method_tvr/scripts/quickstart.sh", "--ctx_mode", "video_tef", "--n_heads", "0")
    assert finished.returncode == 2
    assert "train.sh mini_video video_tef resnet_i3d" in finished.stdout
    assert "--n_heads 0" in finished.stderr


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("--exp_id", "mine"), "--exp_id is what the quickstart decides"),
        (("--ctx_mode", "video_tef", "--device=0"), "--device is what the quickstart decides"),
        (("--ctx_mode",), "--ctx_mode needs a value"),
    ],
)
def test_the_quickstart_refuses_what_it_decides_itself(typed, message):
    finished = run_script("method_tvr/scripts/quickstart.sh", *typed)
    assert finished.returncode == 2
    assert message in finished.stderr
