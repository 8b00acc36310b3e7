"""The scorer against the authors' way in PyTorch: same weights, prompts and vocabulary.

    python tests/benchmarks/scorer.py [--tasks 8] [--instances 8] [--json FILE]

The weights are random, so an answer runs to its 128 tokens, most of them beyond the small
vocabulary and lost in the answer's text; the table says how long answers were. Each side and
dtype is measured in its own process, one after the other.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import common
import workload

SIDES = ("theirs", "ours")
SIDE_NAMES = {"theirs": "authors' way (PyTorch)", "ours": "ait-jax"}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=8, help="spread over the pool by length")
    parser.add_argument("--instances", type=int, default=8, help="n, of every task")
    parser.add_argument("--perturbations", type=int, default=10, help="k")
    parser.add_argument("--model_size", default="small", help="a name in gin/models")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    parser.add_argument("--tokens_per_batch", type=int, help="ours; default: the engine's own")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    common.add_json_option(parser)
    return parser.parse_args()


# --- one side in one process ---


def measure_ours(options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Scores the workload twice: the first pass compiles, the second is the measurement."""
    import jax
    from timed_engine import TimedEngine

    from ait_jax.models.parameters import init_params
    from ait_jax.models.t5 import Transformer

    # A cold compilation is to be cold.
    jax.config.update("jax_enable_compilation_cache", False)
    pool = workload.choose(options.tasks).pool
    model = Transformer(workload.t5_config(options.model_size, dtype))
    engine = TimedEngine.of(model, options.tokens_per_batch)
    params = engine.place(init_params(model, common.SEED)[0])
    peak = common.jax_matmul_peak(dtype)
    with tempfile.TemporaryDirectory() as folder:
        passes = []
        for name in ("cold", "warm"):
            engine.restart()
            path = Path(folder) / f"{name}.parquet"
            passes.append(_score(engine, params, pool, options, path))
    cold, result = passes
    return {**result, "cold_seconds": cold["seconds"], "matmul_peak": peak}


def _score(engine, params, pool, options: argparse.Namespace, path: Path) -> dict[str, Any]:
    from timed_engine import score

    from ait_jax.scorer import likelihoods

    stopwatch = common.Stopwatch()
    score(
        pool, path, engine, params,
        instances=options.instances, perturbations=options.perturbations,
    )  # fmt: skip
    whole = stopwatch.read()
    columns = likelihoods.read_rows(path)
    rows = zip(*columns.values(), strict=True)
    return {
        **whole,
        "decode_seconds": engine.decode_seconds,
        "teacher_forcing_seconds": engine.teacher_forcing_seconds,
        "host_seconds": whole["seconds"] - engine.decode_seconds - engine.teacher_forcing_seconds,
        "padding_fraction": engine.work.summary().get("padding_fraction"),
        "decoded_lengths": engine.decoded_lengths,
        "rows": [dict(zip(columns, row, strict=True)) for row in rows],
    }


def measure_theirs(options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    from authors_way import AuthorsWay, measure

    from ait_jax.models.parameters import init_params
    from ait_jax.models.t5 import Transformer

    pool = workload.choose(options.tasks).pool
    model = Transformer(workload.t5_config(options.model_size, dtype))
    way = AuthorsWay(init_params(model, common.SEED)[0], model.config, dtype)
    peak = way.matmul_peak()
    warm_up = workload.task_prompts(next(iter(pool.values())), 8, 0)
    prompts = [prompts[0] for _, prompts in warm_up]
    way.log_likelihoods(prompts, way.decode(prompts))
    way.tokens = way.padded_tokens = 0
    stopwatch = common.Stopwatch()
    result = measure(way, pool, options.instances, options.perturbations)
    return {**result, **stopwatch.read(), "matmul_peak": peak}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measures the side and dtype that `--measure SIDE,DTYPE` names; adds what both share."""
    from ait_jax.runtime.hardware import peak_flops

    side, dtype = options.measure.split(",")
    result = {"theirs": measure_theirs, "ours": measure_ours}[side](options, dtype)
    rows, decoded = result["rows"], result["decoded_lengths"]
    originals = [row["num_prompt_tokens"] for row in rows if row["prompt"] == 0]
    # The work asked for, counted alike on both sides, whatever either finds a way around.
    pairs = [(row["num_prompt_tokens"], row["num_answer_tokens"]) for row in rows]
    pairs += list(zip(originals, decoded, strict=True))
    config = workload.t5_config(options.model_size, dtype)
    flops = sum(config.flops_per_example(*pair) for pair in pairs)
    return {
        **result,
        "side": side,
        "dtype": dtype,
        "prompts": len(rows),
        "prompts_per_second": len(rows) / result["seconds"],
        "tokens_per_second": sum(map(sum, pairs)) / result["seconds"],
        "flops_per_second": flops / result["seconds"],
        # The best product of either library counts, lest noise during one measurement help.
        "machine_peak": max(peak_flops(), result["matmul_peak"] * (dtype == "float32")),
    }


# --- the comparison ---


def table_row(result: dict[str, Any], machine_peak: float) -> dict[str, Any]:
    flops = result["flops_per_second"]
    return {
        "side": SIDE_NAMES[result["side"]],
        "dtype": result["dtype"],
        "prompts/s": result["prompts_per_second"],
        "total s": result["seconds"],
        "decode s": result["decode_seconds"],
        "teacher forcing s": result["teacher_forcing_seconds"],
        "other s": result["host_seconds"],
        "with cold compilation s": result.get("cold_seconds"),
        "padding": common.percent(result["padding_fraction"]),
        "real tokens/s": result["tokens_per_second"],
        "GFLOP/s": flops / 1e9,
        "of float32 peak": common.percent(flops / machine_peak),
        "of own matmul": common.percent(flops / result["matmul_peak"]),
        "cores used": result["cores_used"],
        "by others": result["cores_of_others"],
    }


def differences(results: list[dict[str, Any]], dtype: str) -> dict[str, Any] | None:
    """Compares log-likelihoods of the same answer under the same prompt on both sides."""
    tables = [
        {(row["task"], row["instance_id"], row["prompt"]): row for row in result["rows"]}
        for side in SIDES
        for result in results
        if (result["side"], result["dtype"]) == (side, dtype)
    ]
    if len(tables) != len(SIDES):
        return None
    theirs, ours = tables
    if theirs.keys() != ours.keys() or any(
        theirs[key]["num_prompt_tokens"] != ours[key]["num_prompt_tokens"] for key in theirs
    ):
        raise SystemExit("The two sides did not read the same prompts.")
    same = [key for key in theirs if theirs[key]["answer"] == ours[key]["answer"]]
    gaps = [abs(theirs[key]["log_likelihood"] - ours[key]["log_likelihood"]) for key in same]
    return {
        "dtype": dtype,
        "rows": len(theirs),
        "rows_with_equal_answers": len(same),
        "largest_difference": max(gaps, default=None),
    }


def ratios(results: list[dict[str, Any]]) -> dict[str, float]:
    def best(side: str, dtype: str = "") -> float:
        return max(
            (
                result["prompts_per_second"]
                for result in results
                if result["side"] == side and result["dtype"].startswith(dtype)
            ),
            default=0.0,
        )

    pairs = {
        "ours float32 / theirs float32": (best("ours", "float32"), best("theirs", "float32")),
        "ours better / theirs float32": (best("ours"), best("theirs", "float32")),
        "ours better / theirs better": (best("ours"), best("theirs")),
    }
    return {name: a / b for name, (a, b) in pairs.items() if a and b}


def print_report(report: dict[str, Any]) -> None:
    results, settings = report["results"], report["settings"]
    prompts, decoded = settings["mean_prompt_tokens"], settings["mean_decoded_tokens"]
    print(f"\n{common.describe_machine(report['machine'])}")
    print(
        f"{settings['tasks']} tasks of {settings['pool_size']} ({settings['source']}), "
        f"n = {settings['instances']}, k = {settings['perturbations']}: {results[0]['prompts']} "
        f"prompts of {prompts:.0f} tokens (the whole pool: {settings['pool_mean_tokens']:.0f}); "
        f"answers of {decoded:.0f} tokens as decoded, {settings['mean_answer_tokens']:.1f} as "
        f"scored.\nThe authors' batches of 64 over the whole pool, n = 10, would be "
        f"{settings['pool_padding']:.1%} padding.\n"
    )
    print(common.table([table_row(result, report["machine_peak"]) for result in results]))
    peaks = ", ".join(
        f"{SIDE_NAMES[r['side']]} {r['dtype']} {r['matmul_peak'] / 1e9:.0f}" for r in results
    )
    print(f"\nMeasured matmul GFLOP/s: {peaks}. Float32 peak: {report['machine_peak'] / 1e9:.0f}.")
    common.warn_if_shared(results)
    for name, ratio in report["ratios"].items():
        print(f"{name}: {ratio:.2f}")
    for found in report["differences"]:
        if found["rows_with_equal_answers"]:
            print(
                f"{found['dtype']}: log-likelihoods differ by at most "
                f"{found['largest_difference']:.1e} on the {found['rows_with_equal_answers']} of "
                f"{found['rows']} rows with equal answers"
            )
        else:
            print(f"{found['dtype']}: no answer is the same on both sides")


def compare(options: argparse.Namespace) -> dict[str, Any]:
    machine, chosen = common.machine(), workload.choose(options.tasks)
    arguments = [
        f"--{name}={getattr(options, name)}"
        for name in ("tasks", "instances", "perturbations", "model_size", "tokens_per_batch")
        if getattr(options, name) is not None
    ]
    results = []
    for side, dtype in ((side, dtype) for dtype in options.dtypes for side in options.sides):
        result = common.measure_apart(__file__, [*arguments, f"--measure={side},{dtype}"])
        # Said at once: the others may take long, or not come to an end.
        print(
            f"{SIDE_NAMES[side]}, {dtype}: {result['prompts']} prompts in "
            f"{result['seconds']:.1f} s, {result['cores_of_others'] or 0:.1f} cores used by others",
            flush=True,
        )
        results.append(result)
    rows, decoded = results[0]["rows"], results[0]["decoded_lengths"]
    return {
        "machine": machine,
        # The same denominator for all: the best float32 product that any process saw.
        "machine_peak": max(result["machine_peak"] for result in results),
        "settings": {
            **{name: getattr(options, name) for name in ("tasks", "instances", "perturbations")},
            "model_size": options.model_size,
            "source": chosen.source,
            "pool_size": chosen.pool_size,
            "pool_mean_tokens": chosen.pool_mean_tokens,
            "pool_padding": chosen.pool_padding,
            "mean_prompt_tokens": sum(row["num_prompt_tokens"] for row in rows) / len(rows),
            "mean_answer_tokens": sum(row["num_answer_tokens"] for row in rows) / len(rows),
            "mean_decoded_tokens": sum(decoded) / len(decoded),
        },
        "differences": [d for t in options.dtypes if (d := differences(results, t))],
        "ratios": ratios(results),
        "results": results,
    }


def main() -> None:
    options = parse_options()
    if options.measure:
        common.save(options.result, measure(options))
        return
    if "theirs" in options.sides:
        common.require_torch()
    report = compare(options)
    print_report(report)
    if options.json:
        for result in report["results"]:
            del result["rows"]
        common.save(options.json, report)


if __name__ == "__main__":
    main()
