"""Attention and dropout do what their formulas say."""

import math

import pytest
import torch
from torch import nn

from method_tvr.layers.attention import attention, hide
from method_tvr.layers.dropout import Dropout
from method_tvr.model_components import BertSelfAttention, TrainablePositionalEncoding


def naive_attention(layer: BertSelfAttention, x: torch.Tensor, context: torch.Tensor, visible: torch.Tensor):
    """Head by head, with -10000 added to what is hidden, as in BERT."""
    query, key, value = layer.query(x), layer.key(context), layer.value(context)
    heads = []
    for head in torch.arange(x.shape[-1]).chunk(layer.n_heads):
        scores = query[..., head] @ key[..., head].transpose(1, 2) / math.sqrt(len(head))
        weights = (scores + (1 - visible.float()) * -10000).softmax(dim=-1)
        heads.append(weights @ value[..., head])
    return torch.cat(heads, dim=-1)


@pytest.mark.parametrize("n_heads", [1, 2, 4])
def test_self_attention_agrees_with_its_formula(n_heads):
    torch.manual_seed(0)
    layer = BertSelfAttention(8, n_heads, 0.5).eval()
    x, context = torch.randn(3, 4, 8), torch.randn(3, 6, 8)
    visible = torch.rand(3, 4, 6) < 0.6
    visible[..., 0] = True
    torch.testing.assert_close(layer(x, context, hide(visible)), naive_attention(layer, x, context, visible))


def test_attention_with_dropout_is_right_on_average():
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 5, 4) for _ in range(3))
    visible = torch.tensor([True, True, True, True, False]).view(1, 1, 5)
    hidden = hide(visible)
    mean = torch.stack([attention(query, key, value, hidden, 1, 0.3) for _ in range(4000)]).mean(dim=0)
    torch.testing.assert_close(mean, attention(query, key, value, hidden, 1, 0.0), atol=0.05, rtol=0)


def test_sizes_that_heads_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiple"):
        BertSelfAttention(10, 4, 0.0)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_the_asked_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    dropped = Dropout(p).train()(torch.ones(333, 301))
    n = dropped.numel()
    share = float((dropped == 0).float().mean())
    assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / n)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-4)
    columns = (dropped == 0).float().mean(dim=0)  # no column is special
    assert float((columns - p).abs().max()) < 6 * math.sqrt(p * (1 - p) / 333)


def test_dropout_draws_from_torchs_generator_and_passes_gradients_of_what_is_kept():
    x = torch.ones(40, 7, requires_grad=True)
    dropout = Dropout(0.4).train()
    torch.manual_seed(3)
    first = dropout(x)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(x))
    assert not torch.equal(first, dropout(x))
    first.sum().backward()
    assert torch.equal(x.grad, first.detach())


def test_dropout_does_nothing_in_evaluation_or_at_zero():
    x = torch.randn(5, 5)
    assert torch.equal(Dropout(0.7).eval()(x), x)
    assert torch.equal(Dropout(0.0).train()(x), x)
    assert isinstance(Dropout(0.1), nn.Dropout)


def test_positions_are_added_in_order_before_the_norm():
    torch.manual_seed(0)
    layer = TrainablePositionalEncoding(10, 8, 0.3).eval()
    x = torch.randn(2, 7, 8)
    expected = nn.functional.layer_norm(x + layer.position_embeddings(torch.arange(7)), (8,))
    torch.testing.assert_close(layer(x), expected)
