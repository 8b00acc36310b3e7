"""The same updates by this library's trainer and by a loop around transformers' T5 in PyTorch.

`prepare` leaves the examples in the order of training in a folder. Both sides begin with the same
parameters and take the same examples in the same batches; AdamW, its settings and clipping are the
same. PyTorch pads a batch to its longest input and target; how our trainer lays out a batch is its
own affair. Rates are of the tokens of examples, whatever either side pads them to.
"""

import argparse
import functools
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import numpy as np
import workload

# Left out of the rates: threads that fill their buffers.
WARM_UP = 3
# Lengths of our rows: as fine as pays in trainings of hundreds of steps.
INPUT_LENGTHS = tuple(range(64, 1025, 64))
TARGET_LENGTHS = (128,)
# AdamW's, on both sides: Hugging Face's defaults, and so ours.
SETTINGS = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "clip_norm": 1.0}


def examples_of(options: argparse.Namespace, steps: int) -> Any:
    """Returns instances of many tasks, enough for every step to have new ones."""
    from ait_jax.prompts.prompts import TkInstructEncoding
    from ait_jax.scorer.batching import LengthBuckets
    from ait_jax.trainer.examples import InstructionExamples

    pool = workload.choose(options.training_tasks).pool
    examples = InstructionExamples(
        pool,
        list(pool),
        max_instances_per_task=math.ceil(steps * options.batch_size / len(pool)),
        vocabulary=workload.vocabulary(),
        encoding=TkInstructEncoding(max_source_length=INPUT_LENGTHS[-1]),
        buckets=LengthBuckets(inputs=INPUT_LENGTHS, targets=TARGET_LENGTHS),
        seed=common.SEED,
    )
    for index in range(len(examples)):  # tokenized before the clock runs
        examples[index]
    return examples


def prepare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Writes batches_STEPS.json: the examples of every step; returns what the tables say of it."""
    from ait_jax.trainer.data import in_order

    described = {}
    for steps in lengths_of(options):
        count = steps * options.batch_size
        order = in_order(examples_of(options, steps), seed=common.SEED, num_examples=count)
        chosen = [[np.asarray(part).tolist() for part in order[i]] for i in range(count)]
        batches = [chosen[i : i + options.batch_size] for i in range(0, count, options.batch_size)]
        common.save(_batches_file(folder, steps), batches)
        described[str(steps)] = {
            "examples": count,
            "mean_input_tokens": float(np.mean([len(inputs) for inputs, _ in chosen])),
            "mean_target_tokens": float(np.mean([len(targets) for _, targets in chosen])),
            "longest_input": max(len(inputs) for inputs, _ in chosen),
        }
    return described


def lengths_of(options: argparse.Namespace) -> list[int]:
    """Returns the numbers of steps that are trained: for the rates, and for the curve if asked."""
    return sorted({options.steps, *([options.curve] if options.curve else [])})


def _batches_file(folder: Path, steps: int) -> Path:
    return folder / f"batches_{steps}.json"


def tokens_of(batches: list[Any]) -> list[int]:
    """Returns input and target tokens of every batch."""
    return [sum(len(inputs) + len(targets) for inputs, targets in batch) for batch in batches]


def steady_rate(tokens: list[int], ends: list[float]) -> float:
    """Returns tokens per second behind the warm-up, from the times at which steps ended."""
    return sum(tokens[WARM_UP:]) / (ends[-1] - ends[WARM_UP - 1])


# --- the sides ---


def measure(
    options: argparse.Namespace, side: str, dropout: float, steps: int, folder: Path
) -> dict[str, Any]:
    """Returns losses, rate and padding of a side's training."""
    of_side = measure_ours if side == "ait-jax" else measure_transformers
    return of_side(options, dropout, steps, folder)


def measure_ours(
    options: argparse.Namespace, dropout: float, steps: int, folder: Path
) -> dict[str, Any]:
    """Trains twice for the rate: the first training compiles, the second is the measurement.

    For the curve once, and without a rate.
    """
    from ait_jax.models.checkpoints.checkpoints import open_checkpoint
    from ait_jax.models.interface import changed
    from ait_jax.models.t5 import Transformer
    from ait_jax.trainer.embedded import EmbeddedTrainer
    from ait_jax.trainer.optimizer import adamw, constant_with_warmup

    model = Transformer(workload.t5_config(options.model_size, "float32"))
    model = changed(model, dropout_rate=dropout)
    trainer = EmbeddedTrainer(
        batch_size=options.batch_size,
        epochs=None,
        steps=steps,
        optimizer=functools.partial(adamw, **SETTINGS),
        schedule=constant_with_warmup(options.learning_rate, 0),
        checkpoint_period=steps,
        log_period=1,
    )
    params = open_checkpoint(folder / "model").load()
    examples = examples_of(options, steps)
    tokens = tokens_of(json.loads(_batches_file(folder, steps).read_text()))
    passes = 2 if steps == options.steps else 1
    measured = [_train(trainer, model, params, examples, tokens) for _ in range(passes)]
    if passes == 1:
        return measured[0] | {"tokens_per_second": None}
    return measured[1] | {"compile_seconds": measured[0]["seconds"] - measured[1]["seconds"]}


def _train(
    trainer: Any, model: Any, params: Any, examples: Any, tokens: list[int]
) -> dict[str, Any]:
    from ait_jax.runtime import reporter
    from ait_jax.runtime.partitioning import Partitioner
    from ait_jax.trainer.interface import TrainingJob

    ends: list[float] = []

    def note(line: str) -> None:
        if line.startswith("step "):
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        job = TrainingJob(examples, params, Path(folder), model, Partitioner(), common.SEED)
        stopwatch = common.Stopwatch()
        with reporter.using(reporter.Reporter(line=note)):
            work = trainer.train(job).work
        result = stopwatch.read()
        lines = [json.loads(s) for s in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    if work.tokens != sum(tokens):
        raise SystemExit(
            f"The trainer read {work.tokens} tokens, not the {sum(tokens)} of the shared examples."
        )
    return {
        **result,
        "seconds": work.seconds,
        "losses": [line["loss"] for line in lines],
        "tokens_per_second": steady_rate(tokens, ends),
        "padding": 1 - work.tokens / work.padded_tokens,
    }


def measure_transformers(
    options: argparse.Namespace, dropout: float, steps: int, folder: Path
) -> dict[str, Any]:
    """Trains as a loop of one's own does: padded to the batch's longest, fused AdamW."""
    import torch
    import transformers

    torch.set_num_threads(options.threads)
    torch.manual_seed(common.SEED)
    model = transformers.T5ForConditionalGeneration.from_pretrained(
        folder / "model", dtype=torch.float32, dropout_rate=dropout,
        attn_implementation="sdpa",
    ).train()  # fmt: skip
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options.learning_rate, betas=(SETTINGS["b1"], SETTINGS["b2"]),
        eps=SETTINGS["eps"], weight_decay=SETTINGS["weight_decay"], fused=True,
    )  # fmt: skip
    batches = json.loads(_batches_file(folder, steps).read_text())
    losses, ends, places = [], [], 0
    stopwatch = common.Stopwatch()
    for batch in batches:
        tensors = {name: torch.from_numpy(array) for name, array in padded(batch).items()}
        places += tensors["input_ids"].numel() + tensors["labels"].numel()
        loss = model(**tensors).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), SETTINGS["clip_norm"])
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        ends.append(time.perf_counter())
        print(f"transformers: step {len(losses)}/{steps}  loss {losses[-1]:.4f}", flush=True)
    tokens = tokens_of(batches)
    return {
        **stopwatch.read(),
        "losses": losses,
        "tokens_per_second": steady_rate(tokens, ends) if steps == options.steps else None,
        "padding": 1 - sum(tokens) / places,
    }


def padded(batch: list[Any]) -> dict[str, np.ndarray]:
    """Returns what transformers' T5 takes, padded to the longest input and the longest target."""
    from authors_way import IGNORED, pad_to_longest

    ids = pad_to_longest([inputs for inputs, _ in batch], 0)
    labels = pad_to_longest([targets for _, targets in batch], IGNORED)
    return {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64), "labels": labels}
