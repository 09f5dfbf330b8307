"""Errors as HTTP statuses and OpenAI's error object."""

from __future__ import annotations

import re
from typing import Any

from kosmos_edge import errors

_PARAMETER = re.compile(r"([A-Za-z_][\w.\[\]]*): ")


class ApiError(Exception):
    """A request that ends with an error. param: the field that it is about."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Retry-After; Connection where the rest of the request is not read; the scheme of a missing key."""
        found = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status in (408, 413):
            found["Connection"] = "close"
        if self.status == 401:
            found["WWW-Authenticate"] = "Bearer"
        return found

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        if self.status in (401, 403):
            kind = "authentication_error" if self.status == 401 else "permission_error"
        elif self.status == 429:
            kind = "rate_limit_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class Disconnected(Exception):
    """The client has gone: nobody takes an answer."""


def refuse(param: str, message: str, status: int = 400, code: str | None = None) -> ApiError:
    """An error about one field."""
    return ApiError(status, f"{param}: {message}", param=param, code=code)


def api_error(error: Exception) -> ApiError:
    """The ApiError for an exception of this package; a 500 without details for any other."""
    if isinstance(error, ApiError):
        return error
    text = " ".join(str(error).split("\n"))
    found = _PARAMETER.match(text)
    param = found.group(1) if found else None
    if isinstance(error, errors.ContextTooLong):
        return ApiError(400, text, code="context_length_exceeded")
    if isinstance(error, errors.InvalidRequest):
        return ApiError(400, text, param=param)
    if isinstance(error, errors.ImageDecodeError):
        return ApiError(422, text, param="image", code="image_not_usable")
    if isinstance(error, errors.Cancelled):
        return ApiError(503, "the request was ended before its answer", code="cancelled", retry_after=1)
    if isinstance(error, errors.OutOfMemory | errors.WorkerDied):
        return ApiError(503, text, code="overloaded", retry_after=5)
    if isinstance(error, errors.ModelNotFound | errors.ModelCorrupt | errors.DeviceUnavailable | errors.KosmosIOError):
        return ApiError(503, text, code="model_not_available")
    if isinstance(error, errors.KosmosError):
        return ApiError(500, text)
    return ApiError(500, "an error in the server; its log has the details")
