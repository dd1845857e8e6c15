"""What a results folder says of its run."""

import json
import re
from pathlib import Path

TIME = r"\d{4}_\d\d_\d\d_\d\d_\d\d_\d\d"


def losses_of(folder: Path) -> list[dict[str, float]]:
    """The losses of each epoch in train.log.txt."""
    epochs = []
    for number, line in enumerate((folder / "train.log.txt").read_text().splitlines()):
        found = re.fullmatch(rf"{TIME} \[Epoch\] (\d{{3}}) \[Loss\] (.*)", line)
        assert found, line
        assert int(found[1]) == number
        words = found[2].split()
        epochs.append(dict(zip(words[::2], map(float, words[1::2]), strict=True)))
    return epochs


def metrics_of(folder: Path) -> list[tuple[int, dict]]:
    """(epoch, metrics) of each line in eval.log.txt."""
    lines = (folder / "eval.log.txt").read_text().splitlines()
    found = [re.fullmatch(rf"{TIME} \[Epoch\] (-?\d+) \[Metrics\] (.*)", line) for line in lines]
    return [(int(match[1]), json.loads(match[2])) for match in found]


def logged(folder: Path, name: str) -> list[str]:
    """Lines of a log without the time they begin with."""
    return [line.split(" ", 1)[1] for line in (folder / name).read_text().splitlines()]
