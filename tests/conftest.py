"""What all tests say about themselves."""

from tests.support.versions import version_lines


def pytest_report_header() -> list[str]:
    """The versions that the tests run on."""
    return version_lines()
