"""The native module, imported in one place so that its absence is explained in one place."""

try:
    from kosmos_edge import _core as _core
except ImportError as error:  # pragma: no cover (needs a broken installation)
    raise ImportError(
        "kosmos_edge._core, the native part of kosmos-edge, is missing or does not fit this Python and machine "
        f"({error}). Install a wheel or build one with `pip install .`; a bare source folder is not enough."
    ) from error

CancelToken = _core.CancelToken
