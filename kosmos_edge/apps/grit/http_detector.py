"""A detector behind HTTP: any program that takes a picture with phrases and returns boxes, as JSON.

POST, Content-Type application/json:

    {"version": 1, "image": "<base64 of a PNG, upright>", "width": 640, "height": 480,
     "caption": "a dog in a field", "phrases": [{"text": "a dog", "start": 0, "end": 5}, ...]}

Answer, status 200, for every phrase a list (which may be empty):

    {"boxes": [[{"box": [x1, y1, x2, y2], "score": 0.87}], []]}

Corners are fractions of the picture, 0..1; scores 0..1; "place" (0..1) may say how sure the corners are.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from kosmos_edge.apps.grit.boxes import Scored, check_scored
from kosmos_edge.apps.grit.detectors import Asked, Found
from kosmos_edge.errors import InvalidRequest, KosmosError, KosmosIOError
from kosmos_edge.folders.journal import Journal

_OF_PICTURE = (400, 413, 415, 422)  # the picture's fault; every other status would meet all pictures
_AGAIN = (429, 500, 502, 503, 504)
_MOST = 16 << 20  # bytes of an answer
_MOST_BOXES = 5000  # of an answer: suppression compares each with each


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The picture goes to the address that the user wrote, and to no other."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None: the status is an error."""


class HttpDetector:
    """Asks `url` about one picture after another.

    tries: how often a connection that fails or ends early, and a status 429 or 5xx, is tried (with growing pauses).
    seconds: for each try, the answer included. A status 400, 413, 415 or 422 and an answer of another form concern one
    picture; other statuses, redirects included, and no answer at all end the run. Proxies of the environment are not
    used.
    """

    def __init__(
        self, url: str, *, seconds: float = 60.0, tries: int = 4, pause: Callable[[float], None] = time.sleep
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidRequest(f"--detector: expected an http or https address, got {url!r}")
        if "@" in parts.netloc:
            raise InvalidRequest("--detector: expected an address without a user name and password")
        self._url, self._seconds, self._tries, self._pause = url, seconds, tries, pause
        self._opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))
        self.facts: Mapping[str, Any] = {"kind": "http", "name": url}

    def identity(self, journal: Journal) -> Mapping[str, Any]:
        """The address. What answers there is not known: after a change there, use another journal."""
        return self.facts

    def detect(self, asked: Sequence[Asked]) -> list[Found | KosmosError]:
        """One request for each picture."""
        return [self._one(one) for one in asked]

    def _one(self, asked: Asked) -> Found | KosmosError:
        picture = asked.picture
        buffer = io.BytesIO()
        Image.frombytes("RGB", (picture.width, picture.height), picture.rgb).save(buffer, "PNG", compress_level=1)
        spans = zip(asked.texts, asked.phrases, strict=True)
        request = {
            "version": 1,
            "image": base64.b64encode(buffer.getvalue()).decode("ascii"),
            "width": picture.width,
            "height": picture.height,
            "caption": asked.caption,
            "phrases": [{"text": text, "start": span.start, "end": span.end} for text, span in spans],
        }
        answer = self._post(json.dumps(request).encode())
        if isinstance(answer, KosmosError):
            return answer
        try:
            return Found(read_boxes(answer, len(asked.phrases)))
        except InvalidRequest as error:
            return InvalidRequest(f"{self._url}: {error}")

    def _post(self, body: bytes) -> bytes | KosmosError:
        """The answer's bytes, or the error of this picture."""
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "kosmos-edge"}
        problem = ""
        for attempt in range(self._tries):
            if attempt:
                self._pause(2.0 ** (attempt - 1))
            try:
                end = time.monotonic() + self._seconds
                with self._opener.open(
                    urllib.request.Request(self._url, body, headers), timeout=self._seconds
                ) as response:
                    answer = _read(response, end)
                    if answer is None:
                        return InvalidRequest(f"{self._url}: an answer of more than {_MOST} bytes")
                    return answer
            except urllib.error.HTTPError as error:
                with error:
                    said = error.read(200).decode("utf-8", "replace").strip()
                problem = f"status {error.code} {error.reason} {said}".strip()
                if error.code in _OF_PICTURE:
                    return InvalidRequest(f"{self._url}: {problem}")
                if error.code not in _AGAIN:
                    break
            except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
                problem = str(getattr(error, "reason", None) or error) or type(error).__name__
        raise KosmosIOError(5, f"the detector does not answer: {problem}", self._url)


def _read(response: http.client.HTTPResponse, end: float) -> bytes | None:
    """The whole answer, None if it is too long. TimeoutError after `end` (monotonic), also while bytes still come;
    IncompleteRead if the connection ends before its length."""
    answer = bytearray()
    while piece := response.read1(1 << 16):
        answer += piece
        if len(answer) > _MOST:
            return None
        if time.monotonic() > end:
            raise TimeoutError("timed out")
    if response.length:  # what is left of Content-Length
        raise http.client.IncompleteRead(bytes(answer), response.length)
    return bytes(answer)


def read_boxes(answer: bytes, phrases: int) -> list[list[Scored]]:
    """The boxes of an answer; InvalidRequest unless it has the documented form."""
    try:
        record = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"expected JSON ({error})") from None
    lists = record.get("boxes") if isinstance(record, dict) else None
    if not isinstance(lists, list) or not all(isinstance(some, list) for some in lists):
        raise InvalidRequest('expected {"boxes": [[...], ...]}')
    if len(lists) != phrases:
        raise InvalidRequest(f"expected boxes for {phrases} phrases, got {len(lists)} lists")
    if (count := sum(map(len, lists))) > _MOST_BOXES:
        raise InvalidRequest(f"expected at most {_MOST_BOXES} boxes for a picture, got {count}")
    return [
        [_scored(f"phrase {number}, box {place}", one) for place, one in enumerate(some)]
        for number, some in enumerate(lists)
    ]


def _scored(where: str, one: Any) -> Scored:
    if not isinstance(one, dict) or not {"box", "score"} <= one.keys():
        raise InvalidRequest(f'{where}: expected {{"box": [...], "score": ...}}')
    return check_scored(where, one["box"], one["score"], one.get("place", 1.0))
