"""From the qids that queries have in published files to the desc_ids of this project's annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from utils.basic_utils import InputError, StrPath
from utils.dataset_files import read_queries_file

PREFIX = "qid"  # of the names of Moment-DETR's files of text features


def desc_ids_of(paths: Sequence[StrPath]) -> dict[str, str]:
    """The desc_id by the qid of each row of annotation files, or by itself where a row has no `qid`.

    `InputError` names file and line of a row without a desc_id, or with a qid that is that of another desc_id.
    """
    found: dict[str, str] = {}
    for path in paths:
        for number, row in enumerate(read_queries_file(path), start=1):
            desc_id, qid = row.get("desc_id"), row.get("qid", row.get("desc_id"))
            if type(desc_id) is not int or type(qid) not in (int, str):
                raise InputError(f"{path}, line {number}: expected a whole number desc_id, and qid a number or text")
            if found.setdefault(str(qid), str(desc_id)) != str(desc_id):
                raise InputError(
                    f"{path}, line {number}: qid {qid} is desc_id {desc_id} here, {found[str(qid)]} before: mend one"
                )
    return found


def desc_id_of(key: str, desc_ids: Mapping[str, str]) -> str | None:
    """The desc_id that features called `X` or `qidX` belong to, None if that is in no row."""
    return desc_ids.get(key, desc_ids.get(key.removeprefix(PREFIX)))
