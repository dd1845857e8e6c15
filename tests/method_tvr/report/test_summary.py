"""Mean and deviation of several runs come from the files that the end of training leaves."""

import json
import os

import pytest

from method_tvr.report.summary import final_metrics, summary_table
from utils.basic_utils import InputError


def write_metrics(folder, name, recall, age):
    path = folder / f"inference_mini_val_a_predictions_VCMR{name}_metrics.json"
    path.write_text(json.dumps({"VCMR": {"0.5-r1": recall}}))
    os.utime(path, (age, age))


def test_the_newest_metrics_of_their_kind_are_taken_and_named(tmp_path, capsys):
    write_metrics(tmp_path, "", 1.0, age=100)
    write_metrics(tmp_path, "_nms_thd_0.5", 2.0, age=200)
    write_metrics(tmp_path, "_SVMR", 3.0, age=150)
    assert final_metrics(str(tmp_path), nms=False)["VCMR"]["0.5-r1"] == 3.0
    assert "2 files of metrics" in (said := capsys.readouterr().out)
    assert "taking the newest, inference_mini_val_a_predictions_VCMR_SVMR_metrics.json" in said
    assert final_metrics(str(tmp_path), nms=True)["VCMR"]["0.5-r1"] == 2.0
    assert not capsys.readouterr().out
    (tmp_path / "inference_mini_val_b_metrics.json").symlink_to("gone")
    assert final_metrics(str(tmp_path), nms=False)["VCMR"]["0.5-r1"] == 3.0


def test_a_run_that_was_not_evaluated_is_named(tmp_path):
    with pytest.raises(InputError, match=r"has no inference_.*let the run finish"):
        final_metrics(str(tmp_path), nms=False)


def test_the_table_has_mean_and_sample_deviation_and_no_types():
    runs = [{"VCMR": {"0.5-r1": value}, "VCMR_by_type": {"v-0.5-r1": 9.0}} for value in (1.0, 2.0, 3.0)]
    assert summary_table(runs).split() == ["VCMR", "0.5-r1", "2.00", "±", "1.00"]
    assert summary_table(runs[:1]).split()[-1] == "0.00"
