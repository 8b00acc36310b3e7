"""How near the scorer comes to what the machine can do, stage by stage.

    python tests/benchmarks/limit.py [--model_size small] [--dtype float32] [--json FILE]

Weights are random. Decoding therefore runs to its 128 tokens; teacher forcing takes the
tasks' reference outputs, so that its targets have real lengths. Model FLOPs are those of
real tokens: padding, waiting and whatever is not a matrix product count as loss.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import common
import workload

DTYPES = ("float32", "bfloat16")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_size", default="small", help="small, large, xl: in gin/models")
    parser.add_argument("--dtype", default="float32", choices=DTYPES, help="of activations")
    parser.add_argument("--tasks", type=int, default=16, help="spread over the pool by length")
    parser.add_argument("--instances", type=int, default=2, help="of every task")
    parser.add_argument("--perturbations", type=int, default=3, help="k")
    parser.add_argument("--tokens_per_batch", type=int, help="default: the engine's own")
    common.add_json_option(parser)
    return parser.parse_args()


def prompts_and_targets(options: argparse.Namespace) -> tuple[list, list, list, workload.Workload]:
    """Returns original prompts, all prompts, the reference outputs for these, the workload."""
    chosen = workload.choose(options.tasks)
    originals, prompts, targets = [], [], []
    for task in chosen.pool.values():
        outputs = {instance.id: instance.outputs[0] for instance in task.instances}
        groups = workload.task_prompts(task, options.instances, options.perturbations)
        for instance_id, texts in groups:
            originals.append(texts[0])
            prompts += texts
            targets += [workload.target_ids(outputs[instance_id])] * len(texts)
    return originals, prompts, targets, chosen


def measure_stage(
    engine: Any, name: str, run: Callable[[], Any], flops: Callable[[Any], float]
) -> dict[str, Any]:
    """Runs a stage twice, for the second run's figures; `flops` takes what it returned."""
    start = time.perf_counter()
    run()
    cold = time.perf_counter() - start
    engine.work.clear()
    stopwatch = common.Stopwatch()
    returned = run()
    warm = stopwatch.read()
    summary = engine.work.summary()
    return {
        "stage": name,
        **warm,
        "cold_seconds": cold,
        "flops_per_second": flops(returned) / warm["seconds"],
        "prompts": summary.get("prompts"),
        "padding_fraction": summary.get("padding_fraction"),
        "work": summary,
    }


def host_wait(work: dict[str, Any]) -> Any:
    """Returns whatever the engine says of time that the device waited for the host."""
    found = [value for key, value in work.items() if "host" in key or "wait" in key]
    return found[0] if found else None


def measure(options: argparse.Namespace) -> dict[str, Any]:
    import jax

    from ait_jax.models.parameters import init_params, num_params
    from ait_jax.models.t5 import Transformer
    from ait_jax.runtime.hardware import peak_flops
    from ait_jax.runtime.partitioning import Partitioner
    from ait_jax.scorer.batching import LengthBuckets
    from ait_jax.scorer.engine import Engine

    # A compilation kept from an earlier run would make the first run look cheap.
    jax.config.update("jax_enable_compilation_cache", False)
    machine, peaks = common.machine(), {t: common.jax_matmul_peak(t) for t in DTYPES}
    originals, prompts, targets, chosen = prompts_and_targets(options)
    config = workload.t5_config(options.model_size, options.dtype)
    model = Transformer(config)
    given = {"tokens_per_batch": options.tokens_per_batch} if options.tokens_per_batch else {}
    engine = Engine(model, Partitioner(), LengthBuckets(), **given)
    params = engine.place(init_params(model, common.SEED)[0])

    def flops(rows: list, answers: list) -> float:
        pairs = zip(rows, answers, strict=True)
        return sum(config.flops_per_example(len(p), len(t)) for p, t in pairs)

    stages = [
        measure_stage(
            engine,
            "encode + teacher forcing",
            lambda: engine.log_likelihoods(params, prompts, targets),
            lambda values: flops(prompts, targets),
        ),
        measure_stage(
            engine,
            "decode",
            lambda: engine.decode(params, originals),
            lambda answers: flops(originals, [[*tokens, 1] for tokens in answers.tokens]),
        ),
    ]
    return {
        "machine": machine,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "peaks": peaks,
        "data_sheet_or_measured_peak": peak_flops(),
        "settings": {key: value for key, value in vars(options).items() if value is not None},
        "source": chosen.source,
        "parameters": num_params(params),
        "mean_prompt_tokens": sum(map(len, prompts)) / len(prompts),
        "mean_target_tokens": sum(map(len, targets)) / len(targets),
        "stages": stages,
    }


def table_row(stage: dict[str, Any], peaks: dict[str, float]) -> dict[str, Any]:
    return {
        "stage": stage["stage"],
        "prompts": stage["prompts"],
        "seconds": stage["seconds"],
        "first run s": stage["cold_seconds"],
        "GFLOP/s": stage["flops_per_second"] / 1e9,
        **{
            f"of {dtype} peak": common.percent(stage["flops_per_second"] / peak)
            for dtype, peak in peaks.items()
        },
        "padding": common.percent(stage["padding_fraction"]),
        "host wait": host_wait(stage["work"]),
        "cores used": stage["cores_used"],
        "by others": stage["cores_of_others"],
    }


def main() -> None:
    options = parse_options()
    report = measure(options)
    peaks = report["peaks"]
    measured = ", ".join(f"{dtype} {peak / 1e9:,.0f}" for dtype, peak in peaks.items())
    print(f"{common.describe_machine(report['machine'])}; {report['device']}")
    print(
        f"T5 {options.model_size} in {options.dtype}, {report['parameters']:,} parameters, "
        f"{report['source']}: prompts of {report['mean_prompt_tokens']:.0f} tokens, targets of "
        f"{report['mean_target_tokens']:.1f}. JAX matmul GFLOP/s of one device: {measured}.\n"
    )
    # Virtual CPU devices share the machine; other devices' peaks add up.
    count = 1 if report["device"].endswith("cpu") else int(report["device"].split()[0])
    peaks = {dtype: peak * count for dtype, peak in peaks.items()}
    print(common.table([table_row(stage, peaks) for stage in report["stages"]]))
    common.warn_if_shared(report["stages"])
    if options.json:
        common.save(options.json, report)


if __name__ == "__main__":
    main()
