"""Files and folders that only their owner may read: they may hold data of users. Those that exist keep their mode."""

from __future__ import annotations

import os
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700


def make_folders(folder: Path) -> None:
    """Make a folder and those above it, whatever the umask allows. Raises OSError."""
    for each in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
        each.mkdir(mode=FOLDER_MODE, exist_ok=True)  # Path.mkdir(parents=True) has the mode for the innermost only
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)  # refuses what is no folder


def open_to_append(path: Path) -> int:
    """Open a file to write at its end, and make it if need be; gives its descriptor. Raises OSError."""
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, FILE_MODE)
