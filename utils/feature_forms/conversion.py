"""From features in any form to those in another: which of them, under which names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.basic_utils import InputError, first_few, is_name, progress
from utils.feature_files.provenance import Plain, made_from, properties
from utils.feature_forms.output.forms import new_features
from utils.feature_forms.source import FeatureSource
from utils.tables import indented

Rename = Callable[[str], str | None]  # from a source's key to the one that is written; None for what is left out
SCRIPT = "utils/annotations/convert_features.py"


@dataclass(frozen=True)
class Chosen:
    """Which features are converted.

    Attributes:
        keys: the source's key by the new one, in the order in which they are written.
        not_asked: how many of the source's are left out.
        lacking: those asked for that the source does not have.
    """

    keys: dict[str, str]
    not_asked: int
    lacking: list[str]


@dataclass(frozen=True)
class Report:
    """What became of the features."""

    done: list[str]  # keys written
    rows: tuple[int, int]  # least and most of one of them
    width: int
    types: list[str]  # in which their sources have them


def renamed(key: str, add_prefix: str = "", remove_prefix: str = "") -> str:
    """A key without `remove_prefix` and with `add_prefix`, unless it has that already."""
    key = key.removeprefix(remove_prefix)
    return key if key.startswith(add_prefix) else add_prefix + key


def choose(
    source: FeatureSource, rename: Rename = renamed, asked: Sequence[str] | None = None, what: str = "videos"
) -> Chosen:
    """The features of a source that are `asked` for by their new names, of `what`; all if None.

    `InputError` when two keys become one, or nothing that is asked for is there.
    """
    all_keys = source.feature_keys()
    source_keys = _renamed_keys(source.path, all_keys, rename)
    if asked is None:
        return Chosen(source_keys, 0, [])
    names = list(dict.fromkeys(asked))
    there = [name for name in names if name in source_keys]
    if not there:
        raise InputError(
            f"{source.path}: has none of the {what} such as {first_few(names, 3)}, but "
            f"{first_few(list(source_keys) or all_keys, 3)}: do --add_prefix or --remove_prefix make them alike?"
        )
    keys = {name: source_keys[name] for name in there}
    return Chosen(keys, len(all_keys) - len(keys), [name for name in names if name not in source_keys])


def _renamed_keys(path: Path, keys: Sequence[str], rename: Rename) -> dict[str, str]:
    """The source's key by the new one, in the source's order."""
    source_keys: dict[str, str] = {}
    for key in keys:
        if (new := rename(key)) is None:
            continue
        if not is_name(new) or not new.strip() or "/" in new:
            raise InputError(f"{path}, key {key}: would be {new!r}, which names no video: change the prefixes")
        other = source_keys.setdefault(new, key)
        if other != key:
            raise InputError(f"{path}: {other} and {key} would both be {new}: change the prefixes")
    return source_keys


def convert(
    source: FeatureSource,
    keys: Mapping[str, str],
    out: Path,
    to: str = "h5",
    kind: str = "video",
    known: Mapping[str, Plain] | None = None,
) -> Report:
    """Write features to `out`, whole or not at all; one of them is in memory at a time.

    Args:
        keys: the source's key by the one to write.
        to: one of `utils.feature_forms.output.forms.FORMS`.
        kind: see `utils.feature_files.provenance`.
        known: properties of `utils.feature_files.provenance.DECISIVE`, which go before what the source says of itself.

    Raises:
        InputError: an array cannot be read or is of another size; all such are named.
    """
    attributes = source.made_by()
    about = {**properties(attributes), **(known or {})}
    wrong: list[str] = []
    width, n_rows, types = None, [], dict[str, None]()
    record = made_from([attributes], SCRIPT, kind, ["numpy", "h5py"], **about)
    with new_features(to, out, kind, record) as writer:
        for key, source_key in progress(keys.items(), "converting", len(keys)):
            try:
                stored_as = source.form(source_key, width)[2]
                features = source.read(source_key, width)
            except InputError as err:
                wrong.append(str(err))
                continue
            width = features.shape[1]
            n_rows.append(features.shape[0])
            types[stored_as] = None
            writer.put(key, features, stored_as)
        if width is None or wrong:
            raise InputError(f"nothing is written:{indented(wrong)}")
    return Report(list(keys), (min(n_rows), max(n_rows)), width, list(types))
