"""The exceptions of kosmos_edge: one base class, one subclass per thing that a caller can act on."""


class KosmosError(Exception):
    """Base class of every error that this package raises on purpose."""


class InvalidRequest(KosmosError, ValueError):
    """An argument is out of range, of the wrong type, or contradicts another; the message says which and why."""


class ModelNotFound(KosmosError):
    """No model file under that path or tag; the message says what was looked for and how to get it."""


class ModelCorrupt(KosmosError):
    """The model file is truncated, damaged, inconsistent, or not a model of this package."""


class ImageDecodeError(KosmosError):
    """The picture could not be decoded in full; nothing was answered about it."""


class DeviceUnavailable(KosmosError):
    """The device or instruction set asked for is not on this machine."""


class OutOfMemory(KosmosError, MemoryError):
    """An allocation failed; the engine stays usable."""


class ContextTooLong(KosmosError):
    """Prompt and answer need more positions than the model has; the message gives both counts."""


class Cancelled(KosmosError):
    """The caller cancelled the request."""


class KosmosIOError(KosmosError, OSError):
    """The operating system refused a read or a write."""


class WorkerDied(KosmosError):
    """isolation="process": the worker process ended in the middle of the call; the next call starts another one."""


class Forked(KosmosError):
    """The model was loaded by the parent process; a forked child must load it again."""
