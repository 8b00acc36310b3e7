"""What `rivals.py` says: medians of the repeats, ratios, differences, as Markdown."""

import statistics
from collections.abc import Sequence
from typing import Any

import common
import numpy as np

OURS = "ait-jax"
NAMES = {
    "ctranslate2-float32": "CTranslate2, float32",
    "ctranslate2-int8": "CTranslate2, int8",
    "transformers": "transformers, float32",
    OURS: "ait-jax, float32",
}
# What values are compared with.
REFERENCE = "transformers"


def line(result: dict[str, Any]) -> str:
    """Returns a measurement in one line, for whoever waits for the others."""
    what = f"{result['part']}, {NAMES[result['side']]}"
    if result["part"] == "training":
        speed = f"dropout {result['dropout']:g}, {result['tokens_per_second']:,.0f} tokens/s"
    else:
        speed = f"{len(result['values']) / result['seconds']:.2f} prompts/s"
    others = result["cores_of_others"] or 0
    return f"{what}, repeat {result['repeat'] + 1}: {speed}, {others:.1f} cores used by others"


def spread(values: Sequence[float], digits: int = 3) -> str | None:
    """Returns "median (least..most)", or the one value; None of none."""
    if not values:
        return None

    def shown(value: float) -> str:
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"

    median = shown(statistics.median(values))
    return median if len(values) == 1 else f"{median} ({shown(min(values))}..{shown(max(values))})"


def ratios(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], name: str) -> Any:
    """Returns ours / theirs of a rate in every repeat that has both."""
    of_repeat = {result["repeat"]: result[name] for result in theirs}
    return [
        result[name] / of_repeat[result["repeat"]]
        for result in ours
        if result["repeat"] in of_repeat
    ]


def markdown(report: dict[str, Any]) -> str:
    """Returns the machine and a table for every part."""
    threads = report["settings"]["threads"]
    peaks = [max(peak.values()) / 1e9 for peak in report["peaks"]]
    parts = [
        f"{common.describe_machine(report['machine'])}. {threads} "
        f"{'thread' if threads == 1 else 'threads'} a side; medians of "
        f"{report['settings']['repeats']} (least..most); the float32 matrix product reaches "
        f"{spread(peaks)} GFLOP/s."
    ]
    if "scoring" in report["prepared"]:
        parts.append(scoring(report))
    if "training" in report["prepared"]:
        parts.append(training(report))
    if report["curves"]:
        parts.append(curves(report))
    return "\n\n".join(parts) + "\n"


# --- scoring ---


def scoring(report: dict[str, Any]) -> str:
    """Returns the scoring table and what it is about."""
    prepared, settings = report["prepared"]["scoring"], report["settings"]
    by_side = _by_side(report["results"], "scoring")
    for results in by_side.values():
        for result in results:
            _add_rates(result, prepared)
    peak = max(max(found.values()) for found in report["peaks"])
    values = {side: results[-1]["values"] for side, results in by_side.items()}
    rows = [
        {
            "scoring": NAMES[side],
            "job prompts/s": spread([result["prompts_per_second"] for result in results]),
            "ait-jax / it": _ratio(by_side, side, "prompts_per_second"),
            "forcing prompts/s": spread([result["forced_per_second"] for result in results]),
            "ait-jax / it, forcing": _ratio(by_side, side, "forced_per_second"),
            "answers/s": spread([result["answers_per_second"] for result in results]),
            "of peak": common.percent(
                statistics.median(result["flops_per_second"] for result in results) / peak
            ),
            **differences(values, side),
            "equal answers": _equal_answers(by_side, side),
            "cores used": _cores_used(results),
            "compiling s": results[0].get("compile_seconds"),
        }
        for side, results in by_side.items()
    ]
    return (
        f"Random T5 1.1 ({settings['model_size']}), {prepared['prompts']} prompts of "
        f"{prepared['mean_prompt_tokens']:.0f} tokens ({prepared['source']}, k = "
        f"{settings['perturbations']}), answers of {prepared['target_tokens']:.0f} tokens to "
        f"{prepared['instances']} of them. The job is all answers, then all log-likelihoods; "
        "forcing is the latter alone. ait-jax's job begins with texts, ends with the table on the "
        "disk, and takes the original prompts' values from the decode; the others' begins with "
        "token ids. "
        "Differences are of mean log-likelihoods of the same answers.\n\n"
        f"{common.table(rows)}"
    )


def _add_rates(result: dict[str, Any], prepared: dict[str, Any]) -> None:
    forced, decoded = result["teacher_forcing_seconds"], result["decode_seconds"]
    flops = prepared["teacher_forcing_flops"]
    result["prompts_per_second"] = prepared["prompts"] / result["seconds"]
    result["forced_per_second"] = prepared["prompts"] / forced
    result["answers_per_second"] = prepared["instances"] / decoded
    result["flops_per_second"] = flops / forced


def differences(values: dict[str, Sequence[float]], side: str) -> dict[str, str | None]:
    """Returns mean and largest difference of a side's log-likelihoods from the reference's."""
    names = ("mean difference", "largest")
    if side == REFERENCE or REFERENCE not in values:
        return dict.fromkeys(names)
    gaps = np.abs(np.subtract(values[side], values[REFERENCE]))
    return {name: f"{gap:.1e}" for name, gap in zip(names, (gaps.mean(), gaps.max()), strict=True)}


def _equal_answers(by_side: dict[str, list[dict[str, Any]]], side: str) -> str | None:
    if side == REFERENCE or REFERENCE not in by_side:
        return None
    theirs, own = (by_side[name][-1]["targets"] for name in (REFERENCE, side))
    equal = sum(a == b for a, b in zip(own, theirs, strict=True))
    return f"{equal} of {len(own)}"


# --- training ---


def training(report: dict[str, Any]) -> str:
    """Returns the training table and what it is about."""
    settings = report["settings"]
    prepared = report["prepared"]["training"][str(settings["steps"])]
    rows = []
    for dropout in settings["dropouts"]:
        by_side = _by_side(report["results"], "training", dropout)
        losses = {side: results[0]["losses"] for side, results in by_side.items()}
        rows += [
            {
                "training": NAMES[side],
                "dropout": f"{dropout:g}",
                "real tokens/s": spread([result["tokens_per_second"] for result in results]),
                "ait-jax / it": _ratio(by_side, side, "tokens_per_second"),
                "padding": common.percent(results[0]["padding"]),
                "loss at step 1": f"{losses[side][0]:.6f}",
                "largest difference": _largest_difference(losses, side),
                "cores used": _cores_used(results),
                "compiling s": results[0].get("compile_seconds"),
            }
            for side, results in by_side.items()
        ]
    return (
        f"{settings['steps']} steps of {settings['batch_size']} examples of "
        f"{prepared['mean_input_tokens']:.0f} + {prepared['mean_target_tokens']:.0f} tokens (the "
        f"longest input has {prepared['longest_input']}), AdamW, learning rate "
        f"{settings['learning_rate']:g}, gradients clipped at norm 1, the same on both sides. "
        "Rates are of tokens that are not padding. Differences are of the loss of any step; with "
        "dropout both sides drop other features.\n\n"
        f"{common.table(rows)}"
    )


def _largest_difference(losses: dict[str, Sequence[float]], side: str) -> str | None:
    if side == REFERENCE or REFERENCE not in losses:
        return None
    return f"{np.abs(np.subtract(losses[side], losses[REFERENCE])).max():.1e}"


def curves(report: dict[str, Any]) -> str:
    """Returns the losses along the longer trainings, means over a tenth of their steps."""
    steps = report["settings"]["curve"]
    width = max(1, steps // 10)
    rows = [
        {
            "mean loss up to step": f"{NAMES[result['side']]}, dropout {result['dropout']:g}",
            **{
                str(end): f"{np.mean(result['losses'][end - width : end]):.4f}"
                for end in range(width, steps + 1, width)
            },
        }
        for result in report["curves"]
    ]
    found = []
    for dropout in report["settings"]["dropouts"]:
        losses = {r["side"]: r["losses"] for r in report["curves"] if r["dropout"] == dropout}
        largest = _largest_difference(losses, OURS) if OURS in losses else None
        found += [f"{largest} with dropout {dropout:g}"] if largest else []
    said = f"\n\nLargest difference of a step's loss: {', '.join(found)}." if found else ""
    return f"{common.table(rows)}{said}"


# --- both ---


def _by_side(
    results: Sequence[dict[str, Any]], part: str, dropout: float | None = None
) -> dict[str, list[dict[str, Any]]]:
    by_side: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        if (result["part"], result.get("dropout")) == (part, dropout):
            by_side.setdefault(result["side"], []).append(result)
    return by_side


def _cores_used(results: Sequence[dict[str, Any]]) -> float:
    """Returns the median; far below the threads, others took the cores."""
    return statistics.median(result["cores_used"] for result in results)


def _ratio(by_side: dict[str, list[dict[str, Any]]], side: str, name: str) -> str | None:
    if side == OURS or OURS not in by_side:
        return None
    return spread(ratios(by_side[OURS], by_side[side], name))
