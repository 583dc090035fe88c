"""Time and memory, measured so that a noisy machine does the least harm."""

import multiprocessing
import time
from collections.abc import Callable

from tqdm import tqdm

Work = Callable[[], object]


def interleaved(works: dict[str, Work], repeats: int, title: str) -> dict[str, list[float]]:
    """Seconds of each work, every time. They run in turn, so that a slow minute of the machine is slow for all."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():  # warm up
        work()
    for _ in tqdm(range(repeats), desc=title, unit="round", leave=False):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def peak_extra_megabytes(prepare: Callable[..., Work], *args: object) -> float:
    """How far memory rises above its start while `prepare(*args)()` runs, in a fresh process (Linux).

    `prepare` may also return a smaller work under `.warm_up`, to be done before the measurement.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (prepare, *args))


def _peak(prepare: Callable[..., Work], *args: object) -> float:
    work = prepare(*args)
    before = _memory("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the high-water mark starts again from here
    work()
    return (_memory("VmHWM") - before) / 1024


def _memory(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))
