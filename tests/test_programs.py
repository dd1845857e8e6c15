"""Programs that are started by their path, which finds the project on PYTHONPATH alone."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.shell import PROJECT_ROOT

PROGRAMS = sorted(
    str(path.relative_to(PROJECT_ROOT))
    for folder in ("method_tvr", "utils")
    for path in (PROJECT_ROOT / folder).rglob("*.py")
    if "__main__" in path.read_text()
)
GUARD = re.compile(
    r"""^if not all\(map\(find_spec, \("method_tvr", (.*)\)\)\):
    print\("error: the project or its packages are missing: type `source setup.sh` in its folder first", .*\)
    sys.exit\(2\)
""",
    re.MULTILINE,
)
HEAVY = ("torch", "torchvision", "transformers", "matplotlib", "av", "PIL", "gradio", "huggingface_hub", "sympy")
ASKED = """
import contextlib, io, runpy, sys

for program in sys.argv[1:]:
    for option, code in (("--help", 0), ("--no_such_option", 2)):
        sys.argv = [program, option]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            try:
                runpy.run_path(program, run_name="__main__")
            except SystemExit as stop:
                assert stop.code == code, (program, option, stop.code)
    if loaded := sorted(set(HEAVY) & sys.modules.keys()):
        sys.exit(f"{program} imports {', '.join(loaded)} before it reads its command line")
print("none of them")
"""
WITH_PROJECT = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
PACKAGES = re.findall(r"^([a-z0-9]+)", (PROJECT_ROOT / "requirements.txt").read_text(), re.MULTILINE)


def ended_without_packages(program, *options, **env):
    """What became of a program that was started by a Python that has nothing installed."""
    code = (
        f"import runpy, sys; sys.argv = [{program!r}, *{options!r}]; runpy.run_path({program!r}, run_name='__main__')"
    )
    bare = [sys.executable, "-S", "-c", f"import sys, os; sys.path[0] = os.path.dirname({program!r}); {code}"]
    return subprocess.run(bare, cwd="/", env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("program", ["utils/annotations/convert.py", "method_tvr/report/summary.py"])
def test_without_pythonpath_a_program_says_so_in_one_line(tmp_path, program):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(PROJECT_ROOT / program), "--help"]
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert "source setup.sh" in ended.stderr


@pytest.mark.parametrize("program", ["utils/mini_tvr.py", "method_tvr/train.py", "utils/extract_features.py"])
def test_without_packages_a_program_says_so_in_one_line(program):
    ended = ended_without_packages(str(PROJECT_ROOT / program), "--help", PYTHONPATH=str(PROJECT_ROOT))
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert "source setup.sh" in ended.stderr


@pytest.mark.parametrize("program", ["eval", "check", "compare", "make_submission"])
def test_without_numpy_the_evaluator_says_so_in_one_line(program):
    ended = ended_without_packages(str(PROJECT_ROOT / "standalone_eval" / f"{program}.py"), "--help")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert "lacks numpy" in ended.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_asks_before_it_imports_from_the_project_and_its_packages(program):
    text = (PROJECT_ROOT / program).read_text()
    guard = GUARD.search(text)
    assert guard
    imports = rf"^(?:from|import) (method_tvr|utils|standalone_eval|{'|'.join(PACKAGES)})\b"
    found = list(re.finditer(imports, text, re.MULTILINE))
    assert found
    assert guard.start() < min(match.start() for match in found)
    assert {match[1] for match in found} & set(PACKAGES) <= set(re.findall(r"\w+", guard[1]))


def test_no_program_imports_what_takes_seconds_before_it_has_read_its_command_line():
    command = [sys.executable, "-c", f"HEAVY = {HEAVY!r}\n{ASKED}", *PROGRAMS]
    ended = subprocess.run(command, cwd=PROJECT_ROOT, env=WITH_PROJECT, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.returncode) == ("none of them\n", 0), ended.stderr


def test_a_search_a_model_and_its_optimiser_need_neither_a_compiler_nor_models_of_language(tmp_path):
    code = f"""
import sys
import method_tvr.ask.search
from method_tvr.optimization import BertAdam
from method_tvr.training.checkpoint import load_checkpoint, save_checkpoint
from tests.support.runs.small_models import small_model

path, model = {str(tmp_path / "model.ckpt")!r}, small_model()
save_checkpoint(path, model, 3)
load_checkpoint(path)
optimizer = BertAdam(model.parameters(), lr=0.1, warmup=0.5, t_total=2)
optimizer.zero_grad()
optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
print(sorted({{"torch._dynamo", *{HEAVY!r}}} & sys.modules.keys()))
"""
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=PROJECT_ROOT, env=WITH_PROJECT, capture_output=True, text=True, check=True)
    assert ended.stdout == "['torch']\n"
