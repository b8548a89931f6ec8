"""Where the cells of a sweep are worked on: processes of this machine, a dask or a ray cluster.

Each backend takes `function` and tasks (key -> arguments) and yields (key, result) as they come. A task whose worker
was lost yields the exception in place of a result; `function` itself is expected not to raise. We write no scheduler:
joblib runs the processes; dask and ray are called through their own clients, because joblib's dask backend leaves a
lost worker unreported and its ray backend gives nothing back until all is done, so that a kill would lose it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from typing import Any

Function = Callable[..., Any]
Tasks = Mapping[str, tuple]
Results = Iterator[tuple[str, Any]]

NEEDS = {"processes": ("joblib", "joblib"), "dask": ("distributed", "dask[distributed]"), "ray": ("ray", "ray")}
CONNECT_SECONDS = 10
ALONE = 2  # times that a task is tried alone after a kill before it counts as lost


def check(backend: str, address: str | None, jobs: int | None) -> None:
    """ValueError with one sentence where a backend is not installed or its options contradict each other."""
    if backend not in NEEDS:
        raise ValueError(f"The backend {backend!r} is unknown; there are {', '.join(NEEDS)}.")
    module, package = NEEDS[backend]
    if importlib.util.find_spec(module) is None:
        raise ValueError(f"The backend {backend} is not installed: pip install '{package}' brings it.")
    if address is not None and backend == "processes":
        raise ValueError("An address is of a cluster: choose the backend dask or ray with it.")
    if address is not None and jobs is not None:
        raise ValueError("The cluster at an address has its own number of workers: leave the number of jobs out.")


def results(function: Function, tasks: Tasks, *, backend: str, jobs: int, address: str | None) -> Results:
    """(key, function(*arguments)) for every task, as they come; an exception for a task whose worker was lost.

    A cluster is called at once: ValueError when there is none at the address.
    """
    if backend == "dask":
        return _dask(function, tasks, jobs, address)
    if backend == "ray":
        return _ray(function, tasks, jobs, address)
    return _processes(function, tasks, jobs) if jobs > 1 else ((key, function(*task)) for key, task in tasks.items())


def _processes(function: Function, tasks: Tasks, jobs: int) -> Results:
    left = dict(tasks)
    while left:
        try:
            for key, result in _pool(function, left, jobs):
                del left[key]
                yield key, result
        except BrokenProcessPool:
            # a process was killed (out of memory?), and its pool with it. Which task did it shows when those that may
            # have been under way are each worked on alone, and once more: a kill from outside is no fault of a task
            for key in list(left)[:jobs]:
                yield key, _alone(function, {key: left.pop(key)})


def _alone(function: Function, task: Tasks) -> Any:
    """The result of a task in a process of its own, or the exception where that was killed twice."""
    from joblib.externals import loky

    ((_, arguments),) = task.items()
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    for _ in range(ALONE):
        # not joblib's own pool, which goes on from one call to the next: what is broken here must reach nothing else
        with loky.ProcessPoolExecutor(1, env=threads) as process:
            try:
                return process.submit(function, *arguments).result()
            except BrokenProcessPool as error:
                lost = error
    return lost


def _pool(function: Function, tasks: Tasks, jobs: int) -> Results:
    import joblib

    with joblib.parallel_config("loky", inner_max_num_threads=1):
        parallel = joblib.Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")
        # a copy: the caller removes what is done while joblib still takes tasks
        yield from parallel(joblib.delayed(_keyed)(function, key, task) for key, task in list(tasks.items()))


def _keyed(function: Function, key: str, task: tuple) -> tuple[str, Any]:
    return key, function(*task)


def _dask(function: Function, tasks: Tasks, jobs: int, address: str | None) -> Results:
    import distributed

    stack = contextlib.ExitStack()
    if address is None:
        cluster = distributed.LocalCluster(
            n_workers=jobs, threads_per_worker=1, dashboard_address=None, silence_logs=logging.ERROR
        )
        client = stack.enter_context(distributed.Client(stack.enter_context(cluster)))
    else:
        client = stack.enter_context(_dask_client(distributed, address))

    def collect() -> Results:
        with stack:
            # one submission each: a cluster that grows with its work sees all of it
            keys = {client.submit(function, *task, key=f"capsnb-{key}", pure=False): key for key, task in tasks.items()}
            for future in distributed.as_completed(keys):
                yield keys[future], future.result() if future.status == "finished" else _failure(future)

    return collect()


def _dask_client(distributed: Any, address: str) -> Any:
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # the sentence below says it
    try:
        return distributed.Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:  # TimeoutError is an OSError
        raise ValueError(f"There is no dask scheduler at {address}: start one and give its address.") from error
    finally:
        logger.setLevel(level)


def _failure(future: Any) -> BaseException:
    if future.status == "error":
        return future.exception()
    return ConnectionError(f"the cluster dropped the task ({future.status})")


def _ray(function: Function, tasks: Tasks, jobs: int, address: str | None) -> Results:
    import ray

    if address is None:
        # "local" starts a ray of its own, whatever RAY_ADDRESS says
        where = {"address": "local", "num_cpus": jobs, "include_dashboard": False}
    else:
        _knock(address)
        where = {"address": address}
    try:
        ray.init(**where, configure_logging=False, log_to_driver=False)
    except Exception as error:  # ray raises bare ones: a node that does not start, another version
        raise ValueError(f"ray does not start or join a cluster: {error}") from error

    def collect() -> Results:
        try:
            remote = ray.remote(function)
            keys = {remote.remote(*task): key for key, task in tasks.items()}
            waiting = list(keys)
            while waiting:
                (done,), waiting = ray.wait(waiting, num_returns=1)
                try:
                    yield keys[done], ray.get(done)
                except ray.exceptions.RayError as error:
                    yield keys[done], error
        finally:
            ray.shutdown()

    return collect()


def _knock(address: str) -> None:
    """ValueError when nobody listens at host:port (or ray://host:port): ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(f"There is no ray cluster at {address}: start one and give its host:port.") from error
