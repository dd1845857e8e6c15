"""What is said of a run that learns nothing, and that nothing is said of one that learns."""

import pytest

from method_tvr import train
from method_tvr.config import parse_train_options
from method_tvr.runs.learnt import Material, at_least, warn_if_unlearnt, warn_of_few_steps

TVR = ["--dset_name", "tvr", "--exp_id", "x"]
MENDED = "--bsz 8 --lr 0.0003 --n_epoch 40 --max_es_cnt -1 --lw_st_ed 0.1"


def said_before(capsys, n_queries: int, *typed: str) -> str:
    warn_of_few_steps(parse_train_options([*TVR, *typed]), n_queries)
    return capsys.readouterr().err


def test_before_a_run_all_of_whose_steps_are_too_few_one_line_names_the_options_that_mend_it(capsys):
    (line,) = said_before(capsys, 40).splitlines()
    assert "100 steps at --lr 0.0001 are too few steps" in line
    assert line.endswith(f"for 40 queries give {MENDED}")
    assert "too few" in said_before(capsys, 87_175, "--lr", "0")
    assert "too few" in said_before(capsys, 40, *MENDED.replace("40", "6").split())


@pytest.mark.parametrize(("n_queries", "typed"), [(87_175, ""), (87_175, "--n_epoch 1"), (40, MENDED), (4_000, "")])
def test_before_a_run_that_can_learn_nothing_is_said(capsys, n_queries, typed):
    assert said_before(capsys, n_queries, *typed.split()) == ""


def test_the_chance_of_as_many_right_answers_is_the_binomial_tail():
    assert at_least(0, 8, 0.03) == 1
    assert at_least(1, 8, 0.03) == pytest.approx(1 - 0.97**8)
    assert at_least(8, 8, 0.5) == pytest.approx(0.5**8)
    assert at_least(545, 10_895, 2e-5) < 1e-9
    assert (at_least(1, 5, 0), at_least(3, 5, 1)) == (0, 1)


@pytest.fixture
def after(tiny_corpus, capsys):
    """What is said after a run on the tiny corpus of so many steps, with a recall of its VCMR R@1, in %."""

    def said(recall: float, steps: int = 1000, **typed: object) -> str:
        opt = parse_train_options(tiny_corpus.options(exp_id="x", lr=0.001, n_epoch=1000, **typed))
        warn_if_unlearnt(opt, Material.read(opt), steps, {"VCMR": {"0.5-r1": recall}})
        return capsys.readouterr().err

    return said


def test_after_a_run_it_is_said_whether_the_result_is_that_of_chance(after, tiny_corpus):
    n_queries = len(tiny_corpus.annotations("val").read_text().splitlines())
    (line,) = after(0.0).splitlines()
    assert f"VCMR 0.5-r1 is 0.00 %, 0 of {n_queries} queries, where blind draws reach" in line
    assert "too few steps" not in line
    assert "1 of" in after(100 / n_queries)
    assert after(50.0) == ""


def test_after_a_run_of_few_steps_that_is_said_whatever_its_result(after):
    (line,) = after(50.0, steps=12).splitlines()
    assert "12 steps at --lr 0.001 are too few steps" in line
    assert "blind" not in line


def test_the_command_says_both_in_one_line_before_and_after(tiny_corpus, tmp_path, run_main):
    typed = {"exp_id": "x", "results_root": tmp_path, "n_epoch": 1, "hidden_size": 8, "n_heads": 2, "lr": 0}
    finished = run_main(train.main, tiny_corpus.options(**typed))
    assert finished.code == 0
    warnings = [line for line in finished.err.splitlines() if line.startswith("warning:")]
    assert ["before" if "will end before" in line else "after" for line in warnings] == ["before", "after"]
    assert "0.5-r1 is" in warnings[1]
    assert "too few steps" in warnings[1]
