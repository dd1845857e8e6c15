"""What can be a repository's name, and what never is one: nothing is asked of the network about the latter."""

import pytest

from utils.hub.names import HubName, hub_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("org/name", HubName("org/name")),
        ("org/my_model-1.5@v1.0", HubName("org/my_model-1.5", "v1.0")),
        ("org/name@refs/pr/1", HubName("org/name", "refs/pr/1")),
    ],
)
def test_names_with_and_without_a_revision(text, name):
    assert hub_name(text) == name
    assert str(name) == text


@pytest.mark.parametrize(
    "text",
    ["name", "a/b/c", "/org/name", "./org/name", "../name", "org/", "org/na me", "org/name*", "org/..", "org/a..b",
     "org/a--b", "org/name.git", "org/name@", "org/name@../../x", "org/name\n", "örg/name", "~/name"],
)  # fmt: skip
def test_what_no_repository_is_called(text):
    assert hub_name(text) is None
