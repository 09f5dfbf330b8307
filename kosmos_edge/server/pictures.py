"""The images of a request: data URIs, base64, files under --media-path, and URLs where they are allowed."""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import os
import re
import threading
from pathlib import Path
from urllib.parse import unquote

from kosmos_edge.errors import InvalidRequest, KosmosIOError
from kosmos_edge.files import open_file
from kosmos_edge.images import Opening
from kosmos_edge.inference.protocol import Session
from kosmos_edge.inference.session import EngineSession
from kosmos_edge.server.errors import ApiError, refuse
from kosmos_edge.server.fields import shown
from kosmos_edge.server.scheduler import Shown
from kosmos_edge.server.settings import Settings
from kosmos_edge.urls import NotPublic, TooManyBytes, UrlRules, fetch

_DATA = re.compile(r"data:([^,;]*)((?:;[^,;]*)*),", re.I)
URL_SECONDS = 10.0  # for one fetch, redirects included
_decoding = threading.BoundedSemaphore(2)  # bounds the memory of images that are being decoded
_TYPES = ("image/", "application/octet-stream")


class Source:
    """An image as a request names it; `load` gets its bytes, in a thread that may wait."""

    def __init__(self, text: str, param: str, settings: Settings) -> None:
        """Checks what can be checked without reading anything."""
        self._text, self._param, self._settings = text, param, settings
        self.shown = Shown(b"")
        scheme = text[:8].lower()
        if scheme.startswith(("http:", "https:")):
            if not settings.allow_urls:
                raise refuse(param, "URLs are not fetched here; send the image as a data: URI", code="urls_not_allowed")
        elif scheme.startswith("file:"):
            if settings.media_path is None:
                raise refuse(param, "files are not read here; send the image as a data: URI", code="files_not_allowed")
        elif scheme.startswith("data:"):
            _check_data_uri(text, param)

    def load(self, session: Session) -> None:
        """Fills `shown` with the decoded image."""
        data = self._read()
        self.shown.key = hashlib.sha256(data).digest()
        opening: Opening = self._settings.opening
        with _decoding:
            picture = opening.open(data)
            self.shown.decode_ms = picture.decode_ms
            self.shown.picture = session.prepare(picture) if isinstance(session, EngineSession) else picture
        self._text = ""

    def _read(self) -> bytes:
        scheme = self._text[:8].lower()
        if scheme.startswith(("http:", "https:")):
            return _fetch(self._text, self._settings.max_body, self._param)
        if scheme.startswith("file:"):
            assert self._settings.media_path is not None
            return _read_file(self._text[5:], self._settings.media_path, self._param)
        text = self._text
        if scheme.startswith("data:"):
            text = text[text.index(",") + 1 :]
        try:
            return base64.b64decode(text.encode("ascii").translate(None, b"\r\n"), validate=True)
        except (UnicodeEncodeError, binascii.Error) as error:
            message = f"expected an image as a data: URI or in base64 ({error}), got {shown(self._text)}"
            raise refuse(self._param, message, code="invalid_image") from None


def _fetch(url: str, most: int, param: str) -> bytes:
    """The file at a URL. A private address that a name has is not told."""
    try:
        return fetch(url, UrlRules(max_bytes=most, seconds=URL_SECONDS))
    except NotPublic:
        raise refuse(param, "not a public address") from None
    except TooManyBytes:
        raise refuse(param, f"more than {most} bytes", 413) from None
    except InvalidRequest as error:
        raise refuse(param, str(error)) from None
    except KosmosIOError as error:
        late = error.errno == errno.ETIMEDOUT
        raise refuse(param, f"not fetched: {error.strerror}", 504 if late else 422) from None


def _check_data_uri(text: str, param: str) -> None:
    found = _DATA.match(text)
    if found is None or not found.group(2).lower().endswith(";base64"):
        raise refuse(param, "expected data:image/...;base64,...", code="invalid_image")
    kind = found.group(1).lower()
    if not kind.startswith(_TYPES):
        raise ApiError(415, f"{param}: expected an image, got {kind[:60] or 'no type'}", param=param)


def _read_file(name: str, folder: Path, param: str) -> bytes:
    """The bytes of file:NAME, relative to the folder or with its whole path; links must stay inside."""
    if name.startswith("///") or name.startswith("//"):
        name = name[2:]
    name = unquote(name)
    if not name or "\0" in name:
        raise refuse(param, "expected file:NAME of a file under the folder of images")
    root = os.path.realpath(folder)
    path = os.path.realpath(os.path.join(root, name))
    if os.path.commonpath([root, path]) != root:
        raise refuse(param, "outside of the folder of images", 403)
    try:
        with open_file(path, pipes=False) as file:
            return file.read()
    except KosmosIOError as error:
        raise refuse(param, f"{name}: {error.strerror}", 422) from None
