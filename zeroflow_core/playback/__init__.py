"""A log, a bag or a run as what there is to see, sweep after sweep: the input of films and viewers.

``source → opening (what is it?) → frames (sweeps with velocities) → Playback (objects, trails) → Moments``

Reading order: ``opening.py`` tells sources apart; ``frames.py`` says what each of them gives, and ``log_frames.py``,
``bag_frames.py`` and ``recorded_flow.py`` are the three kinds; ``runs.py`` knows the folders that distill and evaluate
leave; ``playback.py`` makes Moments of frames.
"""

from zeroflow_core.playback.opening import open_playback
from zeroflow_core.playback.playback import Playback

__all__ = ["Playback", "open_playback"]
