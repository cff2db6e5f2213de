"""Spinning LiDARs as their makers describe them, and variations of them for training.

Sources: the VLP-32C's and HDL-64E's laser tables (their manuals), OS1-128 (data sheet, 1024 columns at 10 Hz);
Argoverse 2's two heads and their vehicle as its calibration and sweeps show them; the HDL-64E's angles, heights and
vehicle as KITTI's sweeps do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3
from zeroflow_core.simulation.scene import EGO_HEIGHT
from zeroflow_core.simulation.solids import rotation_from_turn


@dataclass(frozen=True)
class Head:
    """One spinning head. Frames as everywhere: x forward, y left, z up.

    name:          of the sensor in a log's calibration
    elevations:    (B,) degrees, up positive, in the order of the laser numbers
    columns:       firings in one sweep
    first_azimuth: degrees, of the first column
    clockwise:     seen from above
    start_s:       of the first column, after the sweep's stamp
    position:      (x, y, z) in the vehicle frame, metres
    tilt:          (roll, pitch) of its mounting, radians
    first_laser:   laser number of its first beam
    """

    name: str
    elevations: tuple[float, ...]
    columns: int
    first_azimuth: float = 180.0
    clockwise: bool = True
    start_s: float = 0.0
    position: tuple[float, float, float] = (1.35, 0.0, 1.64)
    tilt: tuple[float, float] = (0.0, 0.0)
    first_laser: int = 0

    @property
    def vehicle_SE3_head(self) -> SE3:
        """Pose of the mounted head in the vehicle frame."""
        return SE3(rotation_from_turn(np.array([*self.tilt, 0.0])), np.array(self.position))


@dataclass(frozen=True)
class Scanner:
    """What carries the heads, and how good they are.

    max_range:   metres
    range_noise: standard deviation, metres
    dropout:     share of returns lost whatever they meet
    sensitivity: the return (reflectance · cos of incidence / range²) that is seen half of the time, 1/m²
    gain:        intensity of a return from a white surface at right angles
    own_body:    boxes of the vehicle that its own beams must get past: (half extents, centre) in the vehicle frame
    """

    heads: tuple[Head, ...]
    max_range: float = 200.0
    range_noise: float = 0.005
    dropout: float = 0.01
    sensitivity: float = 4e-6
    gain: float = 130.0
    sweep_s: float = 0.1
    own_body: tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...] = (
        ((2.3, 0.9, 0.2), (1.4, 0.0, 0.2)),
        ((1.3, 0.65, 0.6), (0.7, 0.0, 0.37)),
    )


# Elevation of each laser of a VLP-32C, by laser number.
_VLP32 = (
    *(7.0, -1.667, 1.667, -0.667, 15.0, -0.333, 3.333, 0.667, 1.333, 0.0, 1.0, 2.333, 0.333, -1.0, 4.667, 10.333),
    *(-6.148, -15.639, -3.0, -2.0, -4.0, -8.843, -4.667, -3.333, -2.667, -5.333, -1.333, -7.254, -3.667, -11.31),
    *(-2.333, -25.0),
)
_VLP32_COLUMNS = 1808  # of 55.296 µs in 0.1 s

SCANNERS = {
    # Two VLP-32C on the roof, half a turn apart; the lower one hangs upside down.
    "av2": Scanner(
        (
            Head("up_lidar", _VLP32, _VLP32_COLUMNS, 136.0, True, 0.002654, (1.35, 0.0, 1.64)),
            Head(
                "down_lidar",
                tuple(-e for e in _VLP32),
                _VLP32_COLUMNS,
                -60.5,
                True,
                0.0061,
                (1.347, 0.005, 1.525),
                (0.006, 0.001),
                32,
            ),
        )
    ),
    # The upper half of its lasers looks out above the lower half. Its vehicle is another one.
    "hdl64": Scanner(
        (
            Head("lidar", tuple(np.linspace(1.94, -8.31, 32)), 2016, 180.0, False, 0.0, (1.2, 0.0, 1.60)),
            Head(
                "lidar", tuple(np.linspace(-9.0, -25.0, 32)), 2016, 180.0, False, 0.0, (1.2, 0.0, 1.52), first_laser=32
            ),
        ),
        max_range=80.0,
        range_noise=0.009,
        gain=480.0,
        own_body=(((1.625, 0.65, 0.6), (1.075, 0.0, 0.35)),),
    ),
    "os1-128": Scanner((Head("lidar", tuple(np.linspace(22.5, -22.5, 128)), 1024),), max_range=170.0, range_noise=0.01),
    "vlp32": Scanner((Head("lidar", _VLP32, _VLP32_COLUMNS),)),
    "small": Scanner((Head("lidar", tuple(np.linspace(-15.0, 15.0, 16)), 620),), 100.0, 0.02, 0.03, 1e-5),
}


def scanner_named(name: str) -> Scanner:
    """One of SCANNERS.

    Raises:
        ZeroFlowError: there is none of that name.
    """
    if name not in SCANNERS:
        raise ZeroFlowError(f"scanner '{name}' is unknown; choose one of: {', '.join(SCANNERS)}")
    return SCANNERS[name]


def adjusted(
    scanner: Scanner,
    height: float | None = None,
    tilt: float | None = None,
    beams: int | None = None,
    noise: float | None = None,
) -> Scanner:
    """The scanner mounted or made otherwise; None leaves a property as it is.

    height: of the first head above the ground, metres; others keep their distance from it
    tilt:   pitch of the mounting, degrees, nose down positive
    beams:  kept of each head, spread evenly over its field of view
    noise:  standard deviation of the range, metres

    Raises:
        ZeroFlowError: a value that no scanner can have.
    """
    most = min(len(head.elevations) for head in scanner.heads)
    if height is not None and not 0.5 <= height <= 5.0:
        raise ZeroFlowError(f"a scanner {height} m above the ground cannot be simulated; give 0.5 to 5 m")
    if tilt is not None and not -20 <= tilt <= 20:
        raise ZeroFlowError(f"a scanner tilted by {tilt}° cannot be simulated; give -20 to 20°")
    if beams is not None and not 2 <= beams <= most:
        raise ZeroFlowError(f"{beams} beams cannot be kept of each head; give 2 to {most}")
    if noise is not None and not 0 <= noise <= 0.5:
        raise ZeroFlowError(f"range noise of {noise} m cannot be simulated; give 0 to 0.5 m")
    if height is not None:
        scanner = _raised(scanner, height - EGO_HEIGHT - scanner.heads[0].position[2])
    heads = []
    for head in scanner.heads:
        roll, pitch = head.tilt
        changed = head if tilt is None else replace(head, tilt=(roll, pitch + float(np.radians(tilt))))
        if beams is not None:
            order = np.argsort(head.elevations)[np.round(np.linspace(0, len(head.elevations) - 1, beams)).astype(int)]
            changed = replace(changed, elevations=tuple(float(head.elevations[k]) for k in np.sort(order)))
        heads.append(changed)
    return replace(scanner, heads=tuple(heads), range_noise=scanner.range_noise if noise is None else noise)


def _raised(scanner: Scanner, rise: float) -> Scanner:
    """The scanner `rise` metres higher; on a smaller vehicle if that is lower."""
    heads = tuple(replace(head, position=(*head.position[:2], head.position[2] + rise)) for head in scanner.heads)
    x, _, lowest = min((head.position for head in scanner.heads), key=lambda position: position[2])
    share = min(1.0, (lowest + rise + EGO_HEIGHT) / (lowest + EGO_HEIGHT))
    body = tuple(
        (
            (half[0] * share, half[1] * share, half[2] * share),
            (x + (at[0] - x) * share, at[1] * share, (at[2] + EGO_HEIGHT) * share - EGO_HEIGHT),
        )
        for half, at in scanner.own_body
    )
    return replace(scanner, heads=heads, own_body=body)


def randomised(scanner: Scanner, rng: np.random.Generator) -> Scanner:
    """A relative of the scanner for training: other height, tilt, beams, angles, resolution, noise and dropout."""
    scanner = _raised(scanner, rng.uniform(-0.35, 0.45))
    roll, pitch, shift, x = rng.normal(0, 0.012), rng.normal(0, 0.02), rng.normal(0, 0.5), rng.uniform(-0.2, 0.2)
    turn, lost = rng.uniform(-180, 180), rng.uniform(0, 0.35)
    resolution, clockwise = rng.uniform(0.7, 1.15), bool(rng.random() < 0.5)
    heads = []
    for head in scanner.heads:
        kept = rng.random(len(head.elevations)) >= lost
        kept[:2] = True
        px, py, pz = head.position
        changed = replace(
            head,
            elevations=tuple(map(float, np.array(head.elevations)[kept] + shift)),
            columns=round(head.columns * resolution),
            first_azimuth=head.first_azimuth + turn,
            clockwise=clockwise,
            position=(px + x, py, pz),
            tilt=(head.tilt[0] + roll, head.tilt[1] + pitch),
        )
        heads.append(changed)
    return replace(
        scanner,
        heads=tuple(heads),
        range_noise=scanner.range_noise * float(np.exp(rng.uniform(-0.4, 1.8))),
        dropout=scanner.dropout + float(rng.uniform(0.0, 0.14)),
        sensitivity=scanner.sensitivity * float(np.exp(rng.uniform(-1, 1.5))),
    )
