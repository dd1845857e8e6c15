"""setup.sh, with a stand-in for Python whose pip only writes down that it was called: no test installs anything."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHELLS = ["bash", "zsh"]
TOOLS = ["bash", "zsh", "cat", "cksum", "dirname", "env", "flock", "head", "mkdir", "readlink", "rm", "cp", "sleep"]

# Makes real virtual environments (without pip, which is slow to put in) so that the real activate script is tested.
STAND_IN = """#!{bash}
case "$*" in
    *version_info*) [ -z "${{OLD_PYTHON:-}}" ] || exit 1 ;;
    *ensurepip*) [ -z "${{NO_VENV_MODULE:-}}" ] || exit 1 ;;
    -V) [ -z "${{OLD_PYTHON:-}}" ] || {{ echo "Python 3.8.1"; exit; }} ;;
    "-m venv "*)
        echo "$*" >> "{log}"
        [ -z "${{VENV_FAILS:-}}" ] || {{ mkdir -p "$3/bin"; exit 1; }}
        "{python}" -m venv --without-pip "$3" && rm "$3/bin/python" && cp "$0" "$3/bin/python"
        exit ;;
    "-m pip --version") exit 0 ;;
    "-m pip "*)
        echo "$*" >> "{log}"
        sleep "${{PIP_SECONDS:-0}}"
        exit "${{PIP_FAILS:-0}}" ;;
esac
exec "{python}" "$@"
"""


class Sandbox:
    """A copy of what setup.sh reads, with a PATH that holds a few tools and the stand-in python3."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a project"  # a space in the path must do no harm
        self.bin = folder / "bin"
        self.log = folder / "calls.log"
        (self.root / "tests").mkdir(parents=True)
        self.bin.mkdir()
        for name in ("setup.sh", "requirements.txt", "tests/requirements.txt", "constraints.txt"):
            shutil.copy(ROOT / name, self.root / name)
        for tool in TOOLS:
            if found := shutil.which(tool):
                (self.bin / tool).symlink_to(found)
        stand_in = self.bin / "python3"
        stand_in.write_text(STAND_IN.format(bash=shutil.which("bash"), log=self.log, python=sys.executable))
        stand_in.chmod(0o755)

    def run(self, code: str, shell: str = "bash", cwd: Path | None = None, **env: str) -> tuple[int, str, str]:
        """Run `code` in a shell that knows nothing but `env`; returns exit code, stdout and stderr."""
        options = ["-f"] if shell == "zsh" else ["--norc"]
        done = subprocess.run(
            [str(self.bin / shell), *options, "-c", code],
            cwd=cwd or self.root,
            env={"PATH": str(self.bin), "HOME": str(self.bin), **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout.strip(), done.stderr

    def calls(self, kind: str) -> list[str]:
        """The commands of one kind, 'pip' or 'venv', that the stand-in was given so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.startswith(f"-m {kind} ")]

    def make_environment(self, folder: Path, packages: dict[str, str]) -> None:
        """Write a virtual environment in which pip would say that `packages` (name to version) are installed."""
        venv.create(folder)
        site = next(folder.glob("lib/python*/site-packages"))
        for name, version in packages.items():
            info = site / f"{name}-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path.resolve())


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed here")
    return str(request.param)


def required() -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    return dict(line.split(">=") for line in lines if line)


def test_first_call_installs_and_activates_and_a_second_one_does_not_call_pip(sandbox: Sandbox, shell: str) -> None:
    code = 'source setup.sh && source setup.sh; echo "$?|$VIRTUAL_ENV|$PYTHONPATH|$(command -v python)"'
    status, out, err = sandbox.run(code, shell)
    venv_dir = sandbox.root / ".venv"
    assert (status, out) == (0, f"0|{venv_dir}|{sandbox.root}|{venv_dir}/bin/python"), err
    assert len(sandbox.calls("pip")) == len(sandbox.calls("venv")) == 1
    assert sandbox.run("source setup.sh", shell)[0] == 0
    assert len(sandbox.calls("pip")) == 1


def test_nothing_is_left_in_the_users_shell_but_the_environment(sandbox: Sandbox, shell: str) -> None:
    listing = "declare -F; compgen -v" if shell == "bash" else "print -l ${(k)functions} ${(k)parameters}"
    code = f"names() {{ {listing}; }}; before=$(names); source setup.sh; names"
    status, out, err = sandbox.run(code, shell)
    assert status == 0, err
    names = {line.split()[-1] for line in out.splitlines() if line}
    assert "deactivate" in names
    assert not [n for n in names if "setup" in n.lower()]
    assert not names & {"root", "venv", "file", "others", "say", "fail", "install", "installed"}


@pytest.mark.parametrize("before", ["", "/x:/y", "/x:{root}:/y", "{root}:/x:/y", "/x:/y:{root}", "{root}"])
def test_project_root_is_first_on_pythonpath_and_there_once(sandbox: Sandbox, shell: str, before: str) -> None:
    given = before.format(root=sandbox.root)
    _, out, _ = sandbox.run('source setup.sh; source setup.sh; echo "$PYTHONPATH"', shell, PYTHONPATH=given)
    others = [part for part in given.split(":") if part and part != str(sandbox.root)]
    assert out == ":".join([str(sandbox.root), *others])


@pytest.mark.parametrize("code", ['source "{link}"', 'bash "{link}" && source "{link}"'])
def test_through_a_link_the_root_is_where_the_file_lies(
    sandbox: Sandbox, shell: str, tmp_path: Path, code: str
) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    (elsewhere / "first.sh").symlink_to("../a project/setup.sh")  # as it lies in the folder of the link
    link = elsewhere / "setup.sh"
    link.symlink_to(elsewhere / "first.sh")
    status, out, err = sandbox.run(f'{code.format(link=link)}; echo "$PYTHONPATH|$VIRTUAL_ENV"', shell, cwd=tmp_path)
    assert (status, out.splitlines()[-1]) == (0, f"{sandbox.root}|{sandbox.root / '.venv'}"), err
    assert not (elsewhere / ".venv").exists()


def test_packages_are_installed_again_when_requirements_change(sandbox: Sandbox) -> None:
    assert sandbox.run("source setup.sh")[0] == 0
    with open(sandbox.root / "requirements.txt", "a") as requirements:
        requirements.write("another\n")
    assert sandbox.run("source setup.sh; source setup.sh")[0] == 0
    assert len(sandbox.calls("pip")) == 2
    assert len(sandbox.calls("venv")) == 1


def test_packages_are_installed_in_the_versions_of_the_constraints(sandbox: Sandbox) -> None:
    assert sandbox.run("source setup.sh; source setup.sh")[0] == 0
    (call,) = sandbox.calls("pip")
    assert call.endswith(f" -r {sandbox.root}/requirements.txt -c {sandbox.root}/constraints.txt")
    assert "--upgrade" not in call


@pytest.mark.parametrize("tests", ["", "1"])
def test_packages_are_installed_again_when_the_constraints_change(sandbox: Sandbox, tests: str) -> None:
    code = "source setup.sh; echo another==1.0 >> constraints.txt; source setup.sh; source setup.sh"
    assert sandbox.run(code, SETUP_TESTS=tests)[0] == 0
    assert len(sandbox.calls("pip")) == 2


def test_the_newest_versions_are_installed_when_asked_for(sandbox: Sandbox, shell: str) -> None:
    code = "source setup.sh; SETUP_LATEST=1 source setup.sh; SETUP_LATEST=1 source setup.sh"
    assert sandbox.run(code, shell)[0] == 0
    _, call = sandbox.calls("pip")
    assert "-c" not in call.split()
    assert "--upgrade" in call.split()


def test_newest_versions_stay_until_the_requirements_change(sandbox: Sandbox) -> None:
    code = "SETUP_LATEST=1 source setup.sh; source setup.sh; echo another==1.0 >> constraints.txt; source setup.sh"
    assert sandbox.run(code)[0] == 0
    assert len(sandbox.calls("pip")) == 1
    assert sandbox.run("echo another >> requirements.txt; source setup.sh")[0] == 0
    _, call = sandbox.calls("pip")
    assert call.endswith("constraints.txt")


def test_a_venv_from_before_there_were_constraints_is_brought_to_them(sandbox: Sandbox) -> None:
    code = "source setup.sh; cat requirements.txt | cksum > .venv/.installed; source setup.sh"
    assert sandbox.run(code)[0] == 0
    assert len(sandbox.calls("pip")) == 2


def test_our_own_active_venv_is_brought_up_to_date(sandbox: Sandbox, shell: str) -> None:
    code = "source setup.sh; echo another >> requirements.txt; source setup.sh; source setup.sh"
    assert sandbox.run(code, shell)[0] == 0
    assert len(sandbox.calls("pip")) == 2


def test_test_tools_are_installed_when_asked_for_and_include_the_rest(sandbox: Sandbox) -> None:
    assert sandbox.run("SETUP_TESTS=1 source setup.sh; SETUP_TESTS=1 source setup.sh; source setup.sh")[0] == 0
    (call,) = sandbox.calls("pip")
    assert call.endswith(f"-r {sandbox.root}/tests/requirements.txt -c {sandbox.root}/constraints.txt")
    assert "-r ../requirements.txt" in (ROOT / "tests" / "requirements.txt").read_text()


def test_test_tools_are_added_to_an_environment_made_without_them(sandbox: Sandbox) -> None:
    assert sandbox.run("source setup.sh; SETUP_TESTS=1 source setup.sh")[0] == 0
    assert len(sandbox.calls("pip")) == 2


def test_failing_pip_is_reported_and_tried_again_by_the_next_call(sandbox: Sandbox, shell: str) -> None:
    code = 'source setup.sh; echo "$?|${VIRTUAL_ENV:-none}"'
    status, out, err = sandbox.run(code, shell, PIP_FAILS="1")
    assert (status, out) == (0, "1|none"), "the shell must live on, outside the environment"
    assert "pip could not install requirements.txt" in err
    status, out, err = sandbox.run(code, shell)
    assert out == f"0|{sandbox.root}/.venv", err
    assert len(sandbox.calls("pip")) == 2


def test_pip_failing_on_changed_requirements_is_not_forgotten_when_they_change_back(sandbox: Sandbox) -> None:
    assert sandbox.run("source setup.sh")[0] == 0
    code = "cp requirements.txt old; echo another >> requirements.txt; source setup.sh; cp old requirements.txt"
    sandbox.run(code, PIP_FAILS="1")
    assert sandbox.run("source setup.sh")[0] == 0
    assert len(sandbox.calls("pip")) == 3


def test_script_with_strict_options_stops_on_failure_and_goes_on_after_success(sandbox: Sandbox, shell: str) -> None:
    code = "set -euo pipefail; source setup.sh; echo went on"
    status, out, _ = sandbox.run(code, shell, PIP_FAILS="1")
    assert status != 0
    assert out == ""
    assert sandbox.run(code, shell)[:2] == (0, "went on")


def test_works_from_another_folder_with_arguments_and_an_odd_cd(sandbox: Sandbox, shell: str, tmp_path: Path) -> None:
    code = """
    cd() { builtin cd "$@" && echo noise; }
    set -- tvr video_sub_tef resnet_i3d --exp_id x
    export CDPATH=..
    source "a project/setup.sh"; echo "$?|$PYTHONPATH|$*"
    """
    _, out, err = sandbox.run(code, shell, cwd=tmp_path)
    assert out == f"0|{sandbox.root}|tvr video_sub_tef resnet_i3d --exp_id x", err


def test_run_instead_of_sourced_it_installs_and_says_to_source_it(sandbox: Sandbox, shell: str) -> None:
    status, out, err = sandbox.run(f"{shell} setup.sh")
    assert (status, out) == (0, "")
    assert f"now: source {sandbox.root}/setup.sh" in err
    assert len(sandbox.calls("pip")) == 1


def test_missing_python_is_reported(sandbox: Sandbox, shell: str) -> None:
    (sandbox.bin / "python3").unlink()
    status, out, err = sandbox.run('source setup.sh; echo "$?"', shell)
    assert (status, out) == (0, "1")
    assert "Python 3.10 or newer" in err
    assert "no program called python3" in err


def test_python_that_is_too_old_or_has_no_venv_module_is_reported(sandbox: Sandbox) -> None:
    status, _, err = sandbox.run("source setup.sh", OLD_PYTHON="1")
    assert status == 1
    assert "python3 is Python 3.8.1" in err
    status, _, err = sandbox.run("source setup.sh", NO_VENV_MODULE="1")
    assert status == 1
    assert "python3 has no venv module" in err
    assert not (sandbox.root / ".venv").exists()


def test_an_older_python3_is_passed_over_for_a_newer_one_beside_it(sandbox: Sandbox) -> None:
    newer = sandbox.bin / "python3.12"
    shutil.move(sandbox.bin / "python3", newer)
    (sandbox.bin / "python3").write_text("#!/bin/sh\nexit 1\n")
    (sandbox.bin / "python3").chmod(0o755)
    status, _, err = sandbox.run("source setup.sh")
    assert status == 0, err
    assert f"({newer})" in err


def test_python_named_by_the_user_is_taken_and_none_other(sandbox: Sandbox) -> None:
    status, _, err = sandbox.run("PYTHON=/no/such/python source setup.sh")
    assert status == 1
    assert "no program called /no/such/python" in err
    status, _, err = sandbox.run(f"PYTHON='{sandbox.bin}/python3' source setup.sh")
    assert status == 0, err


def test_failing_venv_leaves_nothing_behind(sandbox: Sandbox) -> None:
    status, _, err = sandbox.run("source setup.sh", VENV_FAILS="1")
    assert status == 1
    assert "-m venv failed" in err
    assert not (sandbox.root / ".venv").exists()
    assert sandbox.run("source setup.sh")[0] == 0


def test_venv_is_made_anew_after_the_project_moved_or_its_python_went(sandbox: Sandbox) -> None:
    assert sandbox.run("source setup.sh")[0] == 0
    moved = sandbox.root.with_name("moved")
    sandbox.root.rename(moved)
    _, out, err = sandbox.run('source setup.sh; echo "$VIRTUAL_ENV"', cwd=moved)
    assert out == f"{moved}/.venv", err
    (moved / ".venv" / "bin" / "python").unlink()
    assert sandbox.run("source setup.sh", cwd=moved)[0] == 0
    assert len(sandbox.calls("venv")) == 3


def test_a_venv_of_the_users_own_is_never_touched(sandbox: Sandbox) -> None:
    (sandbox.root / ".venv").mkdir()
    (sandbox.root / ".venv" / "precious").touch()
    status, _, err = sandbox.run("source setup.sh")
    assert status == 1
    assert "was not made by setup.sh" in err
    assert [p.name for p in (sandbox.root / ".venv").iterdir()] == ["precious"]


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_active_environment_is_used_as_it_is(sandbox: Sandbox, shell: str, tmp_path: Path, variable: str) -> None:
    sandbox.make_environment(tmp_path / "own", required())
    code = f"""export {variable}="{tmp_path}/own"; source setup.sh; echo "$?|$PYTHONPATH" """
    status, out, err = sandbox.run(code, shell)
    assert (status, out, err) == (0, f"0|{sandbox.root}", "")
    assert not sandbox.log.exists()
    assert not (sandbox.root / ".venv").exists()


def test_active_environment_that_lacks_packages_gets_a_hint_and_nothing_else(sandbox: Sandbox, tmp_path: Path) -> None:
    packages = {**required(), "numpy": "1.9", "tqdm": "4.70.1"}
    del packages["h5py"], packages["orjson"]
    sandbox.make_environment(tmp_path / "own", packages)
    code = 'source setup.sh; echo "$?|$PYTHONPATH"'
    _, out, err = sandbox.run(code, VIRTUAL_ENV=str(tmp_path / "own"))
    assert out == f"1|{sandbox.root}"
    assert "not installed: h5py, orjson" in err
    assert f"pip install -r {sandbox.root}/requirements.txt -c {sandbox.root}/constraints.txt" in err
    assert "numpy 1.9 is older than" in err
    assert "tqdm" not in err
    assert not (sandbox.root / ".venv").exists()


def test_an_active_environment_that_is_gone_does_not_count(sandbox: Sandbox, tmp_path: Path) -> None:
    _, out, err = sandbox.run('source setup.sh; echo "$VIRTUAL_ENV"', VIRTUAL_ENV=str(tmp_path / "gone"))
    assert out == f"{sandbox.root}/.venv", err


@pytest.mark.skipif(not shutil.which("flock"), reason="flock is not installed here")
def test_of_two_calls_at_once_one_installs_and_both_succeed(sandbox: Sandbox) -> None:
    code = "bash setup.sh & first=$!; source setup.sh && wait $first"
    status, _, err = sandbox.run(code, PIP_SECONDS="1")
    assert status == 0, err
    assert len(sandbox.calls("pip")) == 1


@pytest.mark.skipif(not shutil.which("dash"), reason="dash is not installed here")
def test_other_shells_are_told_so(sandbox: Sandbox) -> None:
    (sandbox.bin / "dash").symlink_to(str(shutil.which("dash")))
    status, _, err = sandbox.run("dash -c '. ./setup.sh; echo $?'")
    assert "source me from bash or zsh" in err
    assert status == 0
