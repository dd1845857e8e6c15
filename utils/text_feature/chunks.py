"""Subtitle lines of one video put together into chunks that a language model can take in."""

from __future__ import annotations

from collections.abc import Sequence

SHORT_SHARE = 0.1  # of the size of a chunk: a last chunk below it is not worth training on


def cut_lines(lines: Sequence[list[int]], max_tokens: int) -> tuple[list[list[int]], list[int]]:
    """Lines cut to at most `max_tokens`, and the positions of those that were longer."""
    longer = [i for i, line in enumerate(lines) if len(line) > max_tokens]
    return [line[:max_tokens] for line in lines], longer


def chunk_lines(lengths: Sequence[int], max_tokens: int, drop_short_last: bool = False) -> list[range]:
    """Put whole lines together until no further one fits, as in TVRetrieval.

    Args:
        lengths: tokens of each line, at most `max_tokens`, which a chunk has without special tokens.
        drop_short_last: leave the last chunk out if it has less than a tenth of `max_tokens`, as fine-tuning does;
            extraction keeps it.

    Returns:
        the positions of each chunk's lines: consecutive, beginning with 0.

    Examples:
        >>> chunk_lines([3, 4, 2, 9], max_tokens=10)
        [range(0, 3), range(3, 4)]
    """
    chunks: list[range] = []
    start = n_tokens = 0
    for i, length in enumerate(lengths):
        if length > max_tokens:
            raise ValueError(f"line {i} has {length} tokens, more than the {max_tokens} of a chunk")
        if n_tokens + length > max_tokens:
            chunks.append(range(start, i))
            start, n_tokens = i, 0
        n_tokens += length
    if start < len(lengths) and not (drop_short_last and n_tokens < SHORT_SHARE * max_tokens):
        chunks.append(range(start, len(lengths)))
    return chunks
