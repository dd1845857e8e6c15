"""How close two feature files are: cosines clip by clip, lengths, keys, and what made them.

    bash utils/compare_features.sh OURS.h5 THEIRS.h5 [--json FILE]

It reads files of video, subtitle and query features alike; rows are clips or tokens.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

if not all(map(find_spec, ("method_tvr", "numpy", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

import numpy as np

from utils.basic_utils import (
    InputError,
    StrPath,
    command_line,
    first_few,
    progress,
    refuse_input_as_output,
    write_json,
)
from utils.feature_files.feature_file import FeatureFile
from utils.feature_files.provenance import DECISIVE, contradictions, properties
from utils.tables import aligned

QUANTILES = {"min": 0.0, "1%": 0.01, "10%": 0.1, "median": 0.5, "90%": 0.9, "max": 1.0}
N_WORST = 5
ALSO_SHOWN = ("made_by", "versions")  # of the records, beside what is decisive


def row_cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """(L,) float64 cosine of each row of (L, D) with its counterpart.

    It is 0 where one of the two is all zero and NaN where both are: they agree, but have no direction.
    """
    norms = [np.linalg.norm(rows.astype(np.float64), axis=1) for rows in (ours, theirs)]
    dots = np.einsum("ld,ld->l", ours, theirs, dtype=np.float64)
    both = norms[0] * norms[1]
    cosines = np.divide(dots, both, out=np.zeros(len(dots)), where=both > 0).clip(-1, 1)
    return np.where((norms[0] == 0) & (norms[1] == 0), np.nan, cosines)


@dataclass
class Comparison:
    """What is found in two feature files; of pairs, ours is first."""

    paths: tuple[str, str]
    widths: tuple[int, int]  # feature sizes
    n_keys: tuple[int, int]
    only_ours: list[str]  # keys that the other lacks
    only_theirs: list[str]
    records: tuple[dict[str, Any], dict[str, Any]]  # decisive properties, and what made them
    lengths: dict[str, tuple[int, int]] = field(default_factory=dict)  # of keys that differ in their numbers of rows
    # mean cosine of the rows that both have, None when all are zero in both; no key at all when widths differ
    cosine_of: dict[str, float | None] = field(default_factory=dict)
    cosines: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (N,) of all rows that are not zero in both
    n_both_zero: int = 0  # rows that are all zero in both files
    n_one_zero: int = 0
    norms: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))  # (N, 2) L2 norms of the rows in `cosines`
    largest_difference: float = 0.0  # of any two values

    @property
    def worst(self) -> list[tuple[str, float]]:
        """The keys of the lowest mean cosines, worst first."""
        known = [(key, value) for key, value in self.cosine_of.items() if value is not None]
        return sorted(known, key=lambda pair: pair[1])[:N_WORST]

    @property
    def differing_properties(self) -> list[tuple[str, Any, Any]]:
        """(property, ours, theirs) of what both records say and contradict each other in."""
        return contradictions(*self.records)

    @property
    def distributions(self) -> dict[str, np.ndarray]:
        """What a number for each row is known of, by what to call it."""
        return {"cosine": self.cosines, "norm, ours": self.norms[:, 0], "norm, theirs": self.norms[:, 1]}

    def to_plain(self) -> dict[str, Any]:
        """All of it for JSON; distributions as their mean and quantiles."""
        each = zip(self.paths, self.widths, self.n_keys, self.records, strict=True)
        ours, theirs = (dict(zip(("path", "size", "keys", "record"), values, strict=True)) for values in each)
        return {
            "ours": ours,
            "theirs": theirs,
            "only_ours": self.only_ours,
            "only_theirs": self.only_theirs,
            "lengths": self.lengths,
            "rows": len(self.cosines) + self.n_both_zero,
            "rows_zero_in_both": self.n_both_zero,
            "rows_zero_in_one": self.n_one_zero,
            **{name.replace(", ", "_"): summary(values) for name, values in self.distributions.items()},
            "largest_difference": self.largest_difference,
            "cosine_of": self.cosine_of,
            "differing_properties": self.differing_properties,
        }


def summary(values: np.ndarray) -> dict[str, float] | None:
    """Mean and quantiles of (N,) values; None of none."""
    if not len(values):
        return None
    quantiles = np.quantile(values, list(QUANTILES.values()))
    return {"mean": float(values.mean()), **dict(zip(QUANTILES, quantiles.tolist(), strict=True))}


def compare(ours: StrPath, theirs: StrPath) -> Comparison:
    """Compare two feature files; one key at a time is in memory, and one number for each row.

    Of keys that differ in their numbers of rows, the first ones that both have are compared. `InputError` when a file
    cannot be read, or they have no key in common.
    """
    with FeatureFile(ours) as a, FeatureFile(theirs) as b:
        return _compare((a, b))


def _compare(files: tuple[FeatureFile, FeatureFile]) -> Comparison:
    ours, theirs = (str(file.path) for file in files)
    keys = files[0].feature_keys(), files[1].feature_keys()
    there = set(keys[0]), set(keys[1])
    shared = [key for key in keys[0] if key in there[1]]
    if not shared:
        raise InputError(
            f"{ours} and {theirs} have no key in common (such as {keys[0][0]} and {keys[1][0]}): are they features of "
            "the same videos or queries?"
        )
    found = Comparison(
        paths=(ours, theirs),
        widths=(files[0].width(), files[1].width()),
        n_keys=(len(keys[0]), len(keys[1])),
        only_ours=[_name(key) for key in keys[0] if key not in there[1]],
        only_theirs=[_name(key) for key in keys[1] if key not in there[0]],
        records=(_record(files[0]), _record(files[1])),
    )
    cosines, norms = [found.cosines], [found.norms]
    for key in progress(shared, "comparing"):
        a, b = files[0].read(key, found.widths[0]), files[1].read(key, found.widths[1])
        if len(a) != len(b):
            found.lengths[_name(key)] = len(a), len(b)
        if found.widths[0] != found.widths[1]:
            continue
        n = min(len(a), len(b))
        a, b = a[:n], b[:n]
        of_rows = row_cosines(a, b)
        known = ~np.isnan(of_rows)
        found.cosine_of[_name(key)] = float(of_rows[known].mean()) if known.any() else None
        found.n_both_zero += int(n - known.sum())
        pair = np.stack([np.linalg.norm(a[known], axis=1), np.linalg.norm(b[known], axis=1)], axis=1)
        found.n_one_zero += int((pair == 0).any(axis=1).sum())
        found.largest_difference = max(found.largest_difference, float(np.abs(a - b).max()))
        cosines.append(of_rows[known])
        norms.append(pair)
    found.cosines, found.norms = np.concatenate(cosines), np.concatenate(norms)
    return found


def _name(key: str) -> str:
    """A key as it can be printed and written to JSON: anything may be one."""
    return key if key.isprintable() else ascii(key)[1:-1]


def _record(file: FeatureFile) -> dict[str, Any]:
    attributes = file.made_by()
    also = {name: attributes[name] for name in ALSO_SHOWN if isinstance(attributes.get(name), str)}
    return {**properties(attributes), **{name: text for name, text in also.items() if text.isprintable()}}


def report(found: Comparison) -> str:
    """The comparison as text for people."""
    lines = [aligned([["", "ours", "theirs"], *_sides(found)]), ""]
    for what, keys in (("only in ours", found.only_ours), ("only in theirs", found.only_theirs)):
        lines.append(f"{what}: {first_few(keys) or 'none'}")
    lines += [_lengths_line(found), ""]
    if found.widths[0] != found.widths[1]:
        return "\n".join([*lines, "sizes differ: rows cannot be compared"])
    rows = [["rows that both have", "mean", *QUANTILES]]
    for name, values in found.distributions.items():
        if (of := summary(values)) is not None:
            rows.append([name, *(f"{value:.6g}" for value in of.values())])
    lines.append(aligned(rows))
    lines.append(
        f"{len(found.cosines):,} rows compared, {found.n_one_zero:,} of them all zero in one file; "
        f"{found.n_both_zero:,} more all zero in both; largest difference of two values {found.largest_difference:.3g}"
    )
    if found.worst:
        lines += ["", aligned([["lowest mean cosine", ""], *([key, f"{value:.6g}"] for key, value in found.worst)])]
    return "\n".join(lines)


def _sides(found: Comparison) -> list[list[str]]:
    """Rows about the two files; properties that contradict each other are marked."""
    rows = [["file", *found.paths], ["keys", *map(str, found.n_keys)], ["size", *map(str, found.widths)]]
    different = {name for name, _, _ in found.differing_properties}
    for name in (*DECISIVE, *ALSO_SHOWN):
        if any(name in record for record in found.records):
            values = [str(record.get(name, "not known")) for record in found.records]
            rows.append([name, *values, *(["differs"] if name in different else [])])
    return rows


def _lengths_line(found: Comparison) -> str:
    if not found.lengths:
        return "numbers of rows: all the same"
    most = sorted(found.lengths.items(), key=lambda item: -abs(item[1][0] - item[1][1]))
    named = first_few([f"{key} ({ours} and {theirs})" for key, (ours, theirs) in most])
    mean = np.mean([abs(ours - theirs) for _, (ours, theirs) in most])
    return f"numbers of rows differ: {named}; by {mean:.3g} on average"


@command_line
def main() -> None:
    parser = argparse.ArgumentParser(description="How close two feature files are")
    parser.add_argument("ours", metavar="OURS.h5", help="one feature file")
    parser.add_argument("theirs", metavar="THEIRS.h5", help="another one of the same videos or queries")
    parser.add_argument("--json", metavar="FILE", help="also write the whole comparison there")
    opt = parser.parse_args()
    if opt.json is not None:
        refuse_input_as_output("--json", opt.json, [opt.ours, opt.theirs])
    found = compare(opt.ours, opt.theirs)
    if opt.json is not None:
        write_json(found.to_plain(), opt.json, indent=True)
    print(report(found))


if __name__ == "__main__":
    main()
