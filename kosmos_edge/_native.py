"""The native module, imported here so that one place explains its absence.

In a source tree it is the installed one (kosmos_edge/checkout.py), which must have been built from these sources.
"""

import os

try:
    import kosmos_edge._core as _core  # not `from kosmos_edge import _core`, which leads here
except ImportError as error:
    raise ImportError(
        "kosmos_edge._core, the native part of kosmos-edge, is missing or was not built for this Python and machine "
        f"({error}). Install a wheel or build one with `pip install .`; a bare source folder is not enough.",
        name="kosmos_edge._core",
    ) from error

from kosmos_edge import checkout

checkout.check_native(_core, os.path.dirname(__file__))
CancelToken = _core.CancelToken
__all__ = ["CancelToken", "_core"]
