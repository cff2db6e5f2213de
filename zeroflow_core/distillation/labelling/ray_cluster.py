"""Labelling spread over a Ray cluster: the same work in the same portions, by whatever machines it has."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from zeroflow_core.distillation.labelling.chunks import Chunk
from zeroflow_core.distillation.labelling.work import Work, identity_of, label_chunk, with_precision
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.journal import Record
from zeroflow_core.workers import cores

LOCAL, OWN = "local", "auto"  # a cluster of this machine's own, and the one that it belongs to
_CLIENT = "ray://"  # before an address, where a machine is not in the cluster
_PATIENCE_S = 5.0  # for the answer of a cluster
_WAITING_PER_SLOT = 3  # chunks that the cluster knows of: enough that none of its workers waits, and no more
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Cluster:
    """A Ray cluster that this process is connected to.

    work:  as its workers do it, device and all
    slots: how many of them there are now
    """

    def __init__(self, work: Work) -> None:
        import ray

        self._ray = ray
        gpus = int(ray.cluster_resources().get("GPU", 0))
        wants_gpu = work.device != "cpu" and (gpus > 0 or work.device != "auto")
        if wants_gpu and not gpus:
            raise ZeroFlowError(f"device '{work.device}' was asked for, but the Ray cluster has no GPU; use device cpu")
        self.work = replace(work, device="cuda" if wants_gpu else "cpu")
        self.slots = max(1, gpus if wants_gpu else int(ray.cluster_resources().get("CPU", 1)))
        # One thread, as the labels of other CPU workers are made with. What becomes of a chunk whose worker dies is
        # for this process to say: Ray itself would try a pair that no worker survives for ever.
        environment = {} if wants_gpu else {"runtime_env": {"env_vars": _ONE_THREAD}}
        self._how = {"num_cpus": 1, "num_gpus": int(wants_gpu), "max_retries": 0, **environment}

    def identity(self) -> tuple[str, dict[str, Any]]:
        """identity_of the teacher as the workers have it."""
        try:
            name, identity = self._ray.get(self._ray.remote(**self._how)(identity_of).remote(self.work))
        except self._ray.exceptions.RayTaskError as error:
            raise _as_told(error) from error
        except self._ray.exceptions.RayError as error:
            raise ZeroFlowError(f"the Ray cluster can't start a worker: {_first_line(error)}") from error
        self.work = with_precision(self.work, identity["precision"])
        return name, identity

    def label(
        self,
        chunks: Sequence[Chunk],
        on_record: Callable[[Record], None],
        on_death: Callable[[Chunk, str], list[Chunk]],
    ) -> None:
        """Label all chunks.

        on_death: given a chunk whose worker died, and why, returns those to do in its stead

        Raises:
            ZeroFlowError: a worker can't write, or what on_death raises.
            RuntimeError: any other exception of a worker, with its traceback.
        """
        ray, task = self._ray, self._ray.remote(**self._how)(_label_chunk)
        waiting, begun = list(reversed(chunks)), {}
        try:
            while waiting or begun:
                while waiting and len(begun) < _WAITING_PER_SLOT * self.slots:
                    chunk = waiting.pop()
                    begun[task.remote(self.work, chunk)] = chunk
                (done, *_), _ = ray.wait(list(begun), num_returns=1)
                chunk = begun.pop(done)
                try:
                    for record in ray.get(done):
                        on_record(record)
                except ray.exceptions.RayTaskError as error:
                    raise _as_told(error) from error
                except ray.exceptions.NodeDiedError:
                    waiting.append(chunk)  # the pairs had nothing to do with it
                except ray.exceptions.RayError as error:
                    waiting.extend(reversed(on_death(chunk, f"its worker died: {_first_line(error)}")))
        except BaseException:
            for reference in begun:
                ray.cancel(reference, force=True)
            raise


def _label_chunk(work: Work, chunk: Chunk) -> list[Record]:
    records: list[Record] = []
    label_chunk(work, chunk, records.append)
    return records


@contextmanager
def ray_cluster(address: str, work: Work, jobs: int | None) -> Iterator[Cluster]:
    """A connection to the cluster at `address`, closed afterwards; one that this process has already is used and kept.

    address: ``local`` (one of this machine's own, with `jobs` workers, else one a core), ``auto`` (the cluster that
             this machine belongs to), or a cluster's address

    Raises:
        ZeroFlowError: Ray is not installed, there is no such cluster, or it has not what `work` needs.
    """
    try:
        import ray
    except ImportError as error:
        raise ZeroFlowError(f"Ray cannot be imported ({error}): pip install 'zeroflow_ros[ray]'") from error
    if ray.is_initialized():
        yield Cluster(work)
        return
    if address not in (LOCAL, OWN):
        _check_answers(address)
    how: dict[str, Any] = {"address": address}
    if address == LOCAL:
        how |= {"num_cpus": jobs or cores(), "include_dashboard": False}
    try:
        ray.init(**how, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise ZeroFlowError(
            f"there is no Ray cluster at '{address}' ({_first_line(error)}); start it, or give {LOCAL}"
        ) from error
    try:
        yield Cluster(work)
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Somebody answers there: Ray itself would try for minutes, and fill the screen meanwhile."""
    host, _, port = address.removeprefix(_CLIENT).rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ZeroFlowError(f"'{address}' is no address of a Ray cluster; give host:port, {OWN} or {LOCAL}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_S).close()
    except OSError as error:
        raise ZeroFlowError(
            f"there is no Ray cluster at '{address}' ({error.strerror or error}); start it, or give {LOCAL}"
        ) from error


def _as_told(error: Any) -> Exception:
    """What a task raised, as run_in_workers raises it."""
    return error.cause if isinstance(error.cause, ZeroFlowError) else RuntimeError(f"in a Ray worker:\n{error}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
