"""Tar files for tests."""

import io
import tarfile
from pathlib import Path


def make_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    """Writes a tar file with these members in order."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path
