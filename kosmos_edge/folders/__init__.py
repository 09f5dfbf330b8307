"""Whole folders: sidecars, runs that resume, exports, videos, tar files and tables; see docs/folders.md."""

from kosmos_edge.folders.journal import Journal
from kosmos_edge.folders.running import Entry, FolderRun, Outcome, file_entry
from kosmos_edge.folders.sidecars import Sidecars
from kosmos_edge.folders.wording import Wording

__all__ = ["Entry", "FolderRun", "Journal", "Outcome", "Sidecars", "Wording", "file_entry"]
