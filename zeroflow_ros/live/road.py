"""The road of a cloud through an active node: four threads in a row, each with the newest cloud before it.

``prepare`` (place, compensate, ground) → ``estimate`` (pair, student) → ``publish`` (encode, flow) → ``objects``

While the student works on one cloud, the next one is placed and the last one's flow and objects are published.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sensor_msgs.msg import PointCloud2

from zeroflow_core.objects import moving_objects
from zeroflow_core.pairs import Status
from zeroflow_core.tracking import KEPT_SPEED, Track, Tracker
from zeroflow_ros.live.frames import Frame
from zeroflow_ros.live.health import Health, Problem, told
from zeroflow_ros.live.outlets import Outlets
from zeroflow_ros.live.pipeline import Dropped, Pipeline, Velocities
from zeroflow_ros.live.stages import Stage
from zeroflow_ros.live.surroundings import Surroundings
from zeroflow_ros.parameters.settings import Settings


@dataclass
class Job:
    """A cloud under way.

    message: as it came
    arrived: when, of time.perf_counter
    frame, result: what has become of it so far
    """

    message: PointCloud2
    arrived: float
    frame: Frame | None = None
    result: Velocities | None = None


class Road:
    """Takes clouds and publishes what follows from them; every one ends in exactly one of the outcomes that Health
    counts, and in one message on `processed`.

    can_cluster: whether points can be grouped into objects already (open3d is imported beside the start)
    """

    def __init__(
        self,
        pipeline: Pipeline,
        outlets: Outlets,
        settings: Callable[[], Settings],
        health: Health,
        can_cluster: Callable[[], bool],
    ) -> None:
        self._pipeline, self._outlets = pipeline, outlets
        self._settings, self._health = settings, health
        self._can_cluster = can_cluster
        self._tracker, self._series, self._surroundings = Tracker(), 0, Surroundings()
        self._idle = self._stopping = False
        self._objects: Stage[Job] = Stage("objects", self._find_objects, self._without_objects)
        self._publish: Stage[Job] = Stage("publish", self._publish_flow, self._left_out)
        self._estimate: Stage[Job] = Stage("estimate", self._estimate_flow, self._left_out)
        self._prepare: Stage[Job] = Stage("prepare", self._prepare_cloud, self._left_out)
        self._stages = (self._prepare, self._estimate, self._publish, self._objects)

    def put(self, message: PointCloud2) -> None:
        """One more cloud; returns at once."""
        self._prepare.put(Job(message, time.perf_counter()))

    def stop(self, patience: float) -> bool:
        """Take nothing more. Whether all that was under way has ended within `patience` seconds."""
        self._stopping = True
        for stage in self._stages:
            stage.stop()
        deadline = time.monotonic() + patience
        return all([stage.join(max(deadline - time.monotonic(), 0.0)) for stage in self._stages])

    def _prepare_cloud(self, job: Job) -> None:
        if not (self._outlets.wants_flow() or self._outlets.wants_objects() or self._outlets.wants_surroundings()):
            self._rest(job)
            return
        self._idle = False
        job.frame = self._try(job, lambda: self._pipeline.prepare(job.message))
        if job.frame is not None:
            self._estimate.put(job)

    def _rest(self, job: Job) -> None:
        """Nobody listens: what there was is too old when somebody does again."""
        if not self._idle:
            self._pipeline.reset()
            self._idle = True
        self._health.count("unwatched")
        self._done(job)

    def _estimate_flow(self, job: Job) -> None:
        job.result = self._try(job, lambda: self._pipeline.estimate(job.frame), nothing="no_partner")
        if job.result is not None:
            self._publish.put(job)

    def _publish_flow(self, job: Job) -> None:
        try:
            self._outlets.publish_flow(job.result, self._settings())
            self._outlets.publish_times(job.result, job.arrived)
            goes_on = self._finds_objects() or self._outlets.wants_surroundings()
        except Exception as error:  # whatever the middleware says of one message, the next one may pass
            self._health.problem(Problem.PUBLISH_FAILED, f"a flow was not published: {told(error)}")
            self._done(job)
            return
        self._health.flow_published()
        if goes_on:
            self._objects.put(job)
        else:
            self._done(job)

    def _find_objects(self, job: Job) -> None:
        settings, result = self._settings(), job.result
        try:
            if self._finds_objects():
                with self._health.stage("objects"):
                    tracks = self._follow(result, settings)
                with self._health.stage("markers"):
                    self._outlets.publish_objects(result, tracks, settings.min_speed)
            if self._outlets.wants_surroundings():
                with self._health.stage("map"):
                    self._outlets.publish_surroundings(result, settings, self._surroundings)
        except Exception as error:
            self._tracker.reset()  # who knows what it was in the middle of
            self._surroundings = Surroundings()
            self._health.problem(Problem.OBJECTS_FAILED, f"no objects, map or path for a cloud: {told(error)}")
        self._done(job)

    def _finds_objects(self) -> bool:
        return self._outlets.wants_objects() and self._can_cluster()

    def _follow(self, result: Velocities, settings: Settings) -> list[Track]:
        """The objects that move, in the vehicle frame, where boxes stand upright."""
        sweep = result.frame.sweep
        if sweep.world_SE3_ego is None:  # nothing seen
            return []
        estimated = result.status == Status.OK
        objects = moving_objects(
            sweep.points[estimated],
            result.velocity_in_vehicle[estimated],
            min_speed=KEPT_SPEED * settings.min_speed,
            min_points=settings.min_points,
            min_extent=settings.min_extent,
        )
        if result.series != self._series:
            self._tracker.reset()  # the fixed frame may be another one
            self._series = result.series
        return self._tracker.update(
            objects,
            sweep.stamp_ns,
            sweep.world_SE3_ego,
            min_speed=settings.min_speed,
            confirmations=settings.object_confirmations,
            timeout=settings.object_timeout,
        )

    def _without_objects(self, job: Job) -> None:
        if not self._stopping:
            text = "clouds come faster than moving objects can be found: those of the newest are published"
            self._health.problem(Problem.OBJECTS_SKIPPED, text)
        self._done(job)

    def _left_out(self, job: Job) -> None:
        if self._stopping:
            self._health.count("unwatched")
            self._done(job)
            return
        text = "clouds come faster than they can be processed: the newest are served, others left out"
        self._health.problem(Problem.SKIPPED_BUSY, text)
        self._done(job)

    def _try(self, job: Job, step: Callable, nothing: str = ""):
        """What the step makes of the cloud, or None, when its way has ended here.

        nothing: what is counted when the step gives none
        """
        try:
            made = step()
        except Dropped as why:
            self._health.problem(why.problem, str(why))
        except Exception as error:  # one bad cloud must not end the node; the log and a counter tell
            self._pipeline.reset()
            self._health.problem(Problem.INTERNAL_ERROR, f"a cloud failed: {told(error)}")
        else:
            if made is not None:
                return made
            self._health.count(nothing)
        self._done(job)
        return None

    def _done(self, job: Job) -> None:
        try:
            self._outlets.publish_processed(job.message.header)
        except Exception as error:  # the cloud has had its end already, and is not counted again
            self._health.warn_once(f"'processed' was not published: {told(error)}")
