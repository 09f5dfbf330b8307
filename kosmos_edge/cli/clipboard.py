"""--clipboard: gives a text to the clipboard, by the program that the system has for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from kosmos_edge.errors import InvalidRequest, KosmosIOError

SECONDS = 10


def find_clipboard() -> list[str]:
    """The command that copies its input. InvalidRequest: there is no clipboard here, and why."""
    if sys.platform == "darwin":
        wanted = [["pbcopy"]]
    elif sys.platform == "win32":
        wanted = [["clip"]]
    else:
        wanted = []
        if os.environ.get("WAYLAND_DISPLAY"):
            wanted.append(["wl-copy"])
        if os.environ.get("DISPLAY"):
            wanted += [["xclip", "-selection", "clipboard"], ["xsel", "--clipboard", "--input"]]
        if os.environ.get("WSL_DISTRO_NAME"):
            wanted.append(["clip.exe"])
        if not wanted:
            raise InvalidRequest("--clipboard: there is no display (neither WAYLAND_DISPLAY nor DISPLAY is set)")
    for command in wanted:
        if shutil.which(command[0]):
            return command
    names = " or ".join(command[0] for command in wanted)
    raise InvalidRequest(f"--clipboard: needs the program {names}: install it")


def copy(command: list[str], text: str) -> None:
    """Runs the command with the text. KosmosIOError if it fails."""
    windows = command[0].startswith("clip")
    try:
        # Their outputs are not captured: xclip and wl-copy leave a child behind, which holds the text and the outputs.
        subprocess.run(
            command,
            input=text.encode("utf-16" if windows else "utf-8", "replace"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise KosmosIOError(0, f"it ended with status {error.returncode}", command[0]) from None
    except subprocess.TimeoutExpired:
        raise KosmosIOError(0, f"it did not end within {SECONDS} seconds", command[0]) from None
