"""One digest for one content, another for any other."""

import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.content_digest import content_digest

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


def typed(value):
    """Told apart where == does not: True and 1, 0.0 and -0.0."""
    if isinstance(value, dict):
        return {(type(key), key): typed(item) for key, item in value.items()}
    return [typed(item) for item in value] if isinstance(value, list) else (type(value), repr(value))


@given(plain, plain)
def test_contents_have_the_same_digest_when_they_are_the_same(one, other):
    assert (content_digest(one) == content_digest(other)) == (typed(one) == typed(other))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_a_tensor_keeps_its_digest_when_it_is_saved_and_loaded(dtype):
    content = {"a": torch.randn(3, 4).to(dtype).t(), "b": [torch.ones(()).to(dtype), torch.zeros(0).to(dtype)]}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    assert content_digest(torch.load(buffer, weights_only=True)) == content_digest(content)


def test_a_tensor_has_another_digest_when_anything_about_it_is_another():
    ones = torch.ones(4)
    changed = ones.clone()
    changed[2] = torch.nextafter(changed[2], torch.tensor(2.0))
    others = [changed, ones.view(2, 2), ones.view(torch.int32), ones[:3], -ones, ones.tolist()]
    digests = {content_digest(value) for value in [ones, *others]}
    assert len(digests) == len(others) + 1


def test_the_order_of_a_dict_does_not_matter():
    assert content_digest({"a": 1, "b": 2}) == content_digest({"b": 2, "a": 1})


def test_a_tensor_that_shows_more_than_it_stores_is_refused():
    with pytest.raises(ValueError, match="stores fewer"):
        content_digest({"a": torch.zeros(1).expand(10**12)})


def test_what_has_no_digest_is_refused():
    with pytest.raises(TypeError, match="set"):
        content_digest({"a": {1, 2}})


def test_lists_that_stand_for_endlessly_many_values_are_refused():
    nested: list = [0]
    for _ in range(40):
        nested = [nested, nested]
    with pytest.raises(ValueError, match="values"):
        content_digest(nested)


def test_values_nested_too_deeply_have_no_digest():
    value: list = []
    for _ in range(60):
        value = [value]
    with pytest.raises(ValueError, match="deep in each other"):
        content_digest(value)
