"""constraints.txt has one version of all that is required, for each Python and system, and nothing of one machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.versions import version_lines

ROOT = Path(__file__).resolve().parents[1]
SYSTEMS = {
    "Linux": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"},
    "macOS": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64", "os_name": "posix"},
}


def lines_of(path: Path) -> list[str]:
    """The lines of a requirement file, without comments."""
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def required() -> list[Requirement]:
    """All that any of the project's requirement files asks for."""
    parts = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]  # no environment
    paths = [path for part in parts for path in part.rglob("*requirements.txt")] + [ROOT / "requirements.txt"]
    assert len(paths) >= 7
    return [Requirement(line) for path in paths for line in lines_of(path) if not line.startswith("-r ")]


def pinned(system: str, python: str) -> dict[str, str]:
    """{package: version} of the constraints that hold there."""
    environment = {**SYSTEMS[system], "python_version": python, "python_full_version": f"{python}.0"}
    found: dict[str, str] = {}
    for line in lines_of(ROOT / "constraints.txt"):
        constraint = Requirement(line)
        if constraint.marker is None or constraint.marker.evaluate(environment):
            (specifier,) = constraint.specifier
            assert specifier.operator == "=="
            assert found.setdefault(constraint.name, specifier.version) == specifier.version, line
    return found


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_all_that_is_required_has_a_version_that_is_allowed(system: str, python: str) -> None:
    versions = pinned(system, python)
    for requirement in required():
        found = versions.get(canonicalize_name(requirement.name))
        assert found is not None, f"{requirement}: run bash tests/write_constraints.sh"
        assert requirement.specifier.contains(found), f"{requirement}, constraints.txt has {found}"


def test_constraints_name_no_index_no_path_and_no_extras() -> None:
    lines = lines_of(ROOT / "constraints.txt")
    assert lines == sorted(lines, key=lambda line: re.split("==", line)[0])
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9.-]+==[\w.]+( ; [^:/@\\]+)?", line)] == []


def test_the_tests_say_which_versions_they_run_on() -> None:
    text = " ".join(version_lines())
    assert re.search(r"\bPython 3\.\d+\.\d+.*\btorch \d.*\bnumpy \d.*\bh5py \d.*\bav \d", text)
