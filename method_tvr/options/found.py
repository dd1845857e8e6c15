"""Options of what is done with moments that were found, besides printing them; and of the videos' files."""

from __future__ import annotations

from method_tvr.options.row import INFERENCE, SEARCH, SERVE, Group, Option, Table

# fmt: off
FOUND: Table = (
    Group("videos' files", (INFERENCE, SEARCH, SERVE), (
        Option("videos", None, "folder with the videos' files, such as NAME.mp4, to be shown, or cut by --save_clips",
               metavar="DIR"),
    )),
    Group("found moments", (INFERENCE, SEARCH), (
        Option("save_clips", None, "cut the moments that are found out of the videos in --videos, into this folder "
               "(utils/video_feature/requirements.txt)", metavar="DIR"),
        Option("csv", None, "also list the moments that are found in this file, for spreadsheets", metavar="FILE.csv"),
    )),
)
# fmt: on
EXPORTS = ("save_clips", "csv")
