"""The exceptions of kosmos_edge: one base class, and one subclass per kind of error that a caller can handle."""


class KosmosError(Exception):
    """Base class of all errors that this package raises."""


class InvalidRequest(KosmosError, ValueError):
    """An argument is out of range, of the wrong type, or contradicts another; the message says which one and why."""


class ModelNotFound(KosmosError):
    """There is no model file for that path or tag; the message says what was searched and how to get it."""


class ModelCorrupt(KosmosError):
    """The model file is truncated, damaged, inconsistent, or not a model of this package."""


class ImageDecodeError(KosmosError):
    """The image could not be decoded completely, so there is no answer."""


class DeviceUnavailable(KosmosError):
    """The requested device or instruction set is not available on this machine."""


class OutOfMemory(KosmosError, MemoryError):
    """An allocation failed; the engine stays usable."""


class ContextTooLong(KosmosError):
    """Prompt and answer need more positions than the model has; the message gives both counts."""


class Cancelled(KosmosError):
    """The caller cancelled the request."""


class KosmosIOError(KosmosError, OSError):
    """The operating system refused a read or a write."""


class WorkerDied(KosmosError):
    """isolation="process": the worker process ended during the call; the next call starts a new one."""


class Forked(KosmosError):
    """The model was loaded by the parent process; a forked child must load it again."""
