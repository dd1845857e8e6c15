"""Repositories on the Hugging Face hub, or on a mirror of it: fetched into the hub's cache, and written to.

`huggingface_hub` does it, by its own variables: HF_TOKEN, HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from utils.basic_utils import InputError, StrPath, first_line, needed
from utils.hub.names import HubName

MODEL, DATASET = "model", "dataset"  # kinds of repositories


def fetched(name: HubName, files: Sequence[str], kind: str = MODEL, into: Path | None = None) -> Path:
    """The folder that holds a repository's files after they have been fetched, as far as they were not in the cache.

    Args:
        name: what is fetched.
        files: names or patterns of the files; others stay where they are.
        kind: `MODEL` or `DATASET`.
        into: the folder that they are written to; None: the hub's cache, where the folder is called as the commit is.

    Raises:
        InputError: there is no such repository or revision, it cannot be reached, or not all of it arrived.
    """
    hub = hub_package()
    errors = import_module("huggingface_hub.utils")
    try:
        folder = hub.snapshot_download(
            name.repository,
            repo_type=kind,
            revision=name.revision,
            allow_patterns=list(files),
            local_dir=None if into is None else into.resolve(),
        )
    except errors.RepositoryNotFoundError as err:
        raise InputError(
            f"{name}: is no folder here, and no {kind} on the hub that you may read: check the name; what is private "
            "needs a token in HF_TOKEN"
        ) from err
    except errors.RevisionNotFoundError as err:
        raise InputError(f"{name}: {name.repository} has no such revision: give a branch, a tag or a commit") from err
    except errors.LocalEntryNotFoundError as err:
        raise _unreachable(name, err) from err
    except Exception as err:  # versions of huggingface_hub pass on those of different packages
        raise InputError(
            f"{name}: is no folder here, and could not be fetched whole from the hub ({_said(err)}): try again"
        ) from err
    return Path(folder)


def uploaded(folder: StrPath, name: HubName, message: str, kind: str = MODEL, private: bool = False) -> str:
    """Write the files of a folder into a repository, which is made if it is not there; the address of the new commit.

    An `InputError` if that fails. Then the repository is as it was: a commit is there whole or not at all.
    """
    api = hub_package().HfApi()
    try:
        api.create_repo(name.repository, repo_type=kind, exist_ok=True, **({"private": True} if private else {}))
        commit = api.upload_folder(
            repo_id=name.repository, folder_path=str(folder), repo_type=kind, commit_message=message
        )
    except Exception as err:  # see above
        raise InputError(
            f"{name}: could not be written on the hub ({_said(err)}): check the name, the network, and that the token "
            "in HF_TOKEN may write there"
        ) from err
    return str(commit.commit_url)


def hub_package() -> Any:
    """The package `huggingface_hub`; an `InputError` if it is not there."""
    return needed("huggingface_hub", "the hub", "pip install huggingface_hub")


def _unreachable(name: HubName, err: Exception) -> InputError:
    """Why what is not in the cache could not be had either."""
    constants = import_module("huggingface_hub.constants")
    if constants.HF_HUB_OFFLINE:
        return InputError(
            f"{name}: is no folder here, and not whole in the hub's cache {constants.HF_HUB_CACHE}: "
            "HF_HUB_OFFLINE keeps it from being fetched: unset that, or give a folder"
        )
    why = _said(err.__cause__ or err)
    return InputError(
        f"{name}: is no folder here, not whole in the hub's cache, and the hub at {constants.ENDPOINT} cannot be "
        f"reached ({why}): check the network and HF_ENDPOINT, or give a folder"
    )


def _said(err: BaseException) -> str:
    return f"{type(err).__name__}: {first_line(err)}"
