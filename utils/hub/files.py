"""Files of a corpus, or encoded videos, on the Hugging Face hub: written there, and fetched with their digests checked.

python utils/hub/files.py put FOLDER ORG/NAME [--private]
python utils/hub/files.py get ORG/NAME[@REVISION] FOLDER
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

if not all(map(find_spec, ("method_tvr", "numpy", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from utils.basic_utils import InputError, command_line
from utils.hub.names import HubName, hub_name
from utils.hub.repositories import DATASET, fetched, uploaded
from utils.storage.digests import CARD, DIGESTS, check_digests, write_digests
from utils.storage.folders import files_below
from utils.storage.whole_folder import put_in_place

REMEDY = "name a folder with files"


def put(folder: Path, name: HubName, private: bool = False) -> str:
    """Write the files of a folder, and their digests, into a data repository; returns the address of the commit.

    Hidden files and caches (`*.cache`) stay here. An `InputError` if there is nothing else, or it cannot be written.
    """
    if name.revision is not None:
        raise InputError(f"{name}: a revision is named to fetch files: leave out @{name.revision}")
    paths = [path.relative_to(folder) for path in files_below(folder, lambda name: name != DIGESTS, REMEDY)]
    shared = [path for path in paths if not any(_stays_here(part) for part in path.parts)]
    if not shared:
        raise InputError(f"{folder}: has no files to share: {REMEDY}")
    with TemporaryDirectory() as made:
        for path in shared:  # links, so that nothing is copied
            link = Path(made) / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((folder / path).resolve())
        write_digests(Path(made))
        return uploaded(made, name, f"Files of {folder.name}", kind=DATASET, private=private)


def _stays_here(part: str) -> bool:
    return part.startswith(".") or part.endswith(".cache")


def get(name: HubName, folder: Path) -> list[str]:
    """Fetch the files of a data repository into a folder that is not there yet, or is empty; returns their names.

    What a broken download has fetched is kept beside the folder, from where the next one goes on. Files that the
    repository's digests do not list are left out.

    Raises:
        InputError: they cannot be fetched, or are not as they were published; the folder is then not there.
    """
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder}: is there already: name a folder that is not, or an empty one")
    part = folder.with_name(f".{folder.name}.fetching")
    try:
        part.mkdir(parents=True, exist_ok=True)
        with _removed_if_empty(part):
            fetched(name, ["*"], DATASET, into=part)
        names = check_digests(part)
        kept = {part / name for name in (*names, CARD, DIGESTS)}
        for path in [path for path in part.rglob("*") if not path.is_dir() and path not in kept]:
            path.unlink()
        shutil.rmtree(part / ".cache", ignore_errors=True)  # of huggingface_hub
        put_in_place(part, folder)
    except OSError as err:
        raise InputError(f"{folder}: cannot be written ({err.strerror or err}): name another folder") from err
    return names


@contextmanager
def _removed_if_empty(part: Path) -> Iterator[None]:
    """Remove a folder that is as empty after an error as it was before."""
    try:
        yield
    except InputError:
        if not any(path.is_file() for path in part.rglob("*")):
            shutil.rmtree(part)
        raise


def _named(text: str) -> HubName:
    name = hub_name(text)
    if name is None:
        raise InputError(f"{text}: is no name of a repository: give org/name")
    return name


@command_line
def main() -> None:
    description, _, usage = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=usage, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("action", choices=("put", "get"))
    parser.add_argument("source", help="FOLDER to put, or ORG/NAME to get")
    parser.add_argument("target", help="where it goes")
    parser.add_argument("--private", action="store_true", help="make a repository that is made private")
    args = parser.parse_args()
    if args.action == "put":
        print(f"written: {put(Path(args.source), _named(args.target), args.private)}")
    elif args.private:
        raise InputError("--private: is for what is put: leave it out")
    else:
        print(f"{args.target}: {len(get(_named(args.source), Path(args.target)))} files, as they were published")


if __name__ == "__main__":
    main()
