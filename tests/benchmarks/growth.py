"""How scoring grows: with devices, and with the pool (speed and memory).

    python tests/benchmarks/growth.py devices [--devices 1 2 4 8] [--json FILE]
    python tests/benchmarks/growth.py pool [--pool_sizes 100 1000 10000 50000] [--json FILE]

The mini model with its shipped weights. Virtual CPU devices share the machine's cores, so
`devices` shows what sharding costs, not a gain: 100% is one device's speed. `pool` scores
one-instance tasks in the manner of Self-Instruct; its memory is flat if what a task leaves
behind does not pile up.
"""

import argparse
import itertools
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import common
import workload

from ait_jax import randomness
from ait_jax.pool import Instance, Instruction, Task, TaskPool

VERBS = ("Rewrite", "Summarize", "Translate", "Classify", "Explain", "Shorten", "Continue", "Rate")
OBJECTS = ("sentence", "review", "recipe", "headline", "email", "poem", "question", "dialogue")
MANNERS = (
    "for a child", "in one word", "as a list", "politely", "without naming its author",
    "in the past tense", "so that it rhymes", "from the reader's point of view",
)  # fmt: skip
WORDS = ("river", "market", "yellow", "seldom", "engine", "quiet", "seven", "morning", "paper")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("devices", "pool"))
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--tasks", type=int, default=64, help="`devices`: tasks of the mini pool")
    parser.add_argument("--pool_sizes", type=int, nargs="+", default=[100, 1000, 10000, 50000])
    parser.add_argument("--perturbations", type=int, default=1, help="k")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    common.add_json_option(parser)
    return parser.parse_args()


def synthetic_pool(num_tasks: int) -> TaskPool:
    """Returns one-instance tasks with short instructions and no examples."""

    def pick(texts: tuple[str, ...], *key: Any) -> str:
        return texts[randomness.integer(0, len(texts), common.SEED, "synthetic", *key)]

    def task(i: int) -> Task:
        definition = f"{pick(VERBS, i)} the {pick(OBJECTS, i, 1)} {pick(MANNERS, i, 2)}"
        length = randomness.integer(4, 25, common.SEED, "synthetic length", i)
        text = " ".join(pick(WORDS, i, "word", j) for j in range(length))
        instance = Instance(f"{i}", text, (pick(WORDS, i, "output"),))
        return Task(f"instruction_{i:06d}", Instruction(definition), (instance,))

    return TaskPool(map(task, range(num_tasks)), name="synthetic")


def mini_engine(input_lengths: tuple[int, ...]) -> tuple[Any, Any]:
    """Returns an engine as in gin/experiments/mini.gin and the shipped weights, placed."""
    from timed_engine import TimedEngine

    from ait_jax import assets
    from ait_jax.models.checkpoints.checkpoints import open_checkpoint
    from ait_jax.models.t5 import Transformer
    from ait_jax.scorer.batching import LengthBuckets

    model = Transformer(workload.t5_config("mini", "float32"))
    buckets = LengthBuckets(inputs=input_lengths, targets=(16,))
    engine = TimedEngine.of(model, tokens_per_batch=8192, buckets=buckets)
    return engine, engine.place(open_checkpoint(assets.mini_weights()).load())


class MemoryLog:
    """Resident memory of this process, sampled by a thread from `start` until `stop`."""

    def __init__(self, seconds_between: float = 0.25):
        self.samples: list[tuple[float, float]] = []  # (seconds, MiB)
        self._between, self._stopped = seconds_between, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def start(self) -> None:
        self._start = time.perf_counter()
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _sample(self) -> None:
        import psutil

        process = psutil.Process()
        while not self._stopped.is_set():
            mib = process.memory_info().rss / 2**20
            self.samples.append((round(time.perf_counter() - self._start, 2), round(mib, 1)))
            self._stopped.wait(self._between)


def measure_devices(options: argparse.Namespace) -> dict[str, Any]:
    """Scores tasks of the mini pool on the devices that XLA_FLAGS made."""
    import jax
    from ait_jax.tasks import mini
    from timed_engine import score

    if jax.device_count() != options.measure:
        raise SystemExit(f"{jax.device_count()} devices, asked for {options.measure}")
    whole = mini.load_pool()
    names = list(whole)
    step = max(1, len(names) // options.tasks)
    pool = TaskPool([whole[name] for name in names[::step][: options.tasks]])
    engine, params = mini_engine((96, 112, 128, 160))
    with tempfile.TemporaryDirectory() as folder:
        settings = {"instances": 4, "perturbations": options.perturbations}
        cold = score(pool, Path(folder) / "cold.parquet", engine, params, **settings)
        stopwatch = common.Stopwatch()
        score(pool, Path(folder) / "warm.parquet", engine, params, **settings)
        warm = stopwatch.read()
    prompts = sum(min(4, len(t.instances)) for t in pool.values()) * (options.perturbations + 1)
    return {
        "devices": options.measure,
        "prompts": prompts,
        **warm,
        "cold_seconds": cold,
        "prompts_per_second": prompts / warm["seconds"],
    }


def measure_pool(options: argparse.Namespace) -> dict[str, Any]:
    """Scores a synthetic pool; memory is logged after compilation and after the pool is made."""
    from timed_engine import score

    engine, params = mini_engine((48, 64, 96, 160))
    pool, log = synthetic_pool(options.measure), MemoryLog()
    settings = {"instances": 1, "perturbations": options.perturbations}
    with tempfile.TemporaryDirectory() as folder:
        # A whole chunk of tasks, so that it compiles all programs; where the pool has fewer, all.
        first = TaskPool(list(pool.values())[:4096])
        score(first, Path(folder) / "cold.parquet", engine, params, **settings)
        log.start()
        stopwatch = common.Stopwatch()
        score(pool, Path(folder) / "warm.parquet", engine, params, **settings)
        warm = stopwatch.read()
        log.stop()
        written = (Path(folder) / "warm.parquet").stat().st_size
    mib = [sample for _, sample in log.samples]
    return {
        "tasks": len(pool),
        "prompts": len(pool) * (options.perturbations + 1),
        **warm,
        "prompts_per_second": len(pool) * (options.perturbations + 1) / warm["seconds"],
        "rss_start_mib": mib[0],
        "rss_by_fifth_mib": [max(part) for part in _fifths(mib)],
        "rss_peak_mib": max(mib),
        "parquet_mib": written / 2**20,
        "rss_samples": log.samples,
    }


def _fifths(values: list[float]) -> list[list[float]]:
    """Cuts a list into five parts of nearly equal length, none of them empty."""
    edges = [len(values) * i // 5 for i in range(6)]
    return [values[a:b] or [values[a]] for a, b in itertools.pairwise(edges)]


def device_rows(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    base = results[0]["prompts_per_second"]
    return [
        {
            "virtual devices": result["devices"],
            "prompts/s": result["prompts_per_second"],
            f"of {results[0]['devices']} device's": common.percent(
                result["prompts_per_second"] / base
            ),
            "seconds": result["seconds"],
            "with cold compilation s": result["cold_seconds"],
            "cores used": result["cores_used"],
            "by others": result["cores_of_others"],
        }
        for result in results
    ]


def pool_rows(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def slope(number: int) -> float | None:
        """Milliseconds of each prompt beyond those of the pool before."""
        if not number:
            return None
        before, now = results[number - 1], results[number]
        seconds, prompts = (now[name] - before[name] for name in ("seconds", "prompts"))
        return 1e3 * seconds / prompts

    return [
        {
            "tasks": result["tasks"],
            "prompts/s": result["prompts_per_second"],
            "seconds": result["seconds"],
            "ms a further prompt": slope(number),
            "RSS before MiB": result["rss_start_mib"],
            "highest in each fifth of the time": " ".join(f"{mib:.0f}" for mib in fifths),
            "first to last fifth": f"{fifths[-1] - fifths[0]:+.0f}",
            "table written MiB": result["parquet_mib"],
            "cores of others": result["cores_of_others"],
        }
        for number, result in enumerate(results)
        if (fifths := result["rss_by_fifth_mib"])
    ]


def main() -> None:
    options = parse_options()
    if options.measure is not None:
        measure = measure_devices if options.what == "devices" else measure_pool
        common.save(options.result, measure(options))
        return
    machine = common.machine()
    arguments = [options.what, f"--perturbations={options.perturbations}"]
    arguments.append(f"--tasks={options.tasks}")
    results = []
    for size in options.devices if options.what == "devices" else options.pool_sizes:
        count = size if options.what == "devices" else 1
        flags = f"--xla_force_host_platform_device_count={count}"
        results.append(
            common.measure_apart(
                __file__, [*arguments, f"--measure={size}"], XLA_FLAGS=flags, JAX_PLATFORMS="cpu"
            )
        )
    print(common.describe_machine(machine))
    print(f"{machine['cores']} cores under all of it; mini model, k = {options.perturbations}\n")
    print(common.table((device_rows if options.what == "devices" else pool_rows)(results)))
    common.warn_if_shared(results)
    if options.json:
        common.save(options.json, {"machine": machine, options.what: results})


if __name__ == "__main__":
    main()
