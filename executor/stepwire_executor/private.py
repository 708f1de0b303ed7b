"""Files and folders that only their owner may read: they may hold data of users. Those that exist keep their mode."""

from __future__ import annotations

import os
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700


def make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it, whatever the umask allows. Return the new ones, the innermost first.

    Raises OSError.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=FOLDER_MODE, exist_ok=True)  # Path.mkdir(parents=True) has the mode for the innermost only
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)  # refuses what is no folder
    return missing


def make_file(path: Path) -> None:
    """Make an empty file, unless there is one. Raises OSError."""
    if path.exists():  # it may not be opened, not even for a moment: see sqlite_open
        return
    try:  # a link to what does not exist yet is followed, which O_EXCL alone would refuse
        os.close(os.open(os.path.realpath(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE))
    except FileExistsError:  # another process was faster
        return


def replace_file(path: Path, text: str) -> None:
    """Put a text into a file at once, so that nobody reads half of it. Raises OSError."""
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)  # of a process that was killed
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        if path.exists():
            os.fchmod(descriptor, path.stat().st_mode & 0o777)
        file.write(text)
    scratch.replace(path)
