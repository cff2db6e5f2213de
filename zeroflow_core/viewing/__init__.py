"""Moments in the Rerun viewer: opened on a screen, served to a browser, or saved as a file.

Reading order: ``recording.py`` says what is logged of a moment, and where; ``layout.py`` how the viewer shows it;
``outlets.py`` where it goes. All three need rerun-sdk (extra ``viz``): ask `require_viewer` before importing them.
"""

from __future__ import annotations

from importlib import import_module

from zeroflow_core.errors import ZeroFlowError


def require_viewer() -> None:
    """Raise ZeroFlowError, which says what to install, unless Rerun's SDK can be imported."""
    try:
        import_module("rerun.blueprint")
    except ImportError as error:
        raise ZeroFlowError(
            f"Rerun, which shows things, cannot be imported ({error}): pip install 'zeroflow_ros[viz]'"
        ) from error
