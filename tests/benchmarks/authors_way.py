"""Scoring as the authors' code does it, with Hugging Face's T5 in PyTorch.

Active-IT's `ni_trainer.py` and pipeline: greedy answers to the original prompts first; then,
for one instruction after the other, the answers teacher-forced under it. Batches are 64 rows
in the order of the tasks, padded to their longest row. PyTorch is imported only where it is
used: how the batches are made can be tested without it.
"""

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import common
import numpy as np
import workload

# What the loss leaves out (PyTorch's default).
IGNORED = -100


def batches(rows: Sequence[Any], size: int = workload.AUTHORS_BATCH) -> Iterator[Sequence[Any]]:
    """Yields `size` rows at a time, in order; the last batch has what is left."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def pad_to_longest(rows: Sequence[Sequence[int]], value: int) -> np.ndarray:
    """Returns int64 [rows, longest row], padded with `value` on the right."""
    padded = np.full((len(rows), max(map(len, rows))), value, np.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded


class AuthorsWay:
    """Hugging Face's T5 as the authors run it.

    Attributes:
      tokens, padded_tokens: prompt tokens read so far, without and with padding.
    """

    def __init__(self, params: Any, config: Any, dtype: str):
        import torch
        from hugging_face import hugging_face_model

        torch.set_num_threads(os.cpu_count())
        self._torch = torch
        self._model = hugging_face_model(params, config).to(getattr(torch, dtype))
        self.tokens = self.padded_tokens = 0

    def decode(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Returns the greedy answers' ids, end-of-sequence included where there is one."""
        answers = []
        with self._torch.inference_mode():
            for rows in batches(prompts):
                generated = self._model.generate(
                    **self._inputs(rows), max_new_tokens=workload.MAX_TARGET_LENGTH,
                    do_sample=False, num_beams=1,
                )  # fmt: skip
                # The first id is the decoder's start.
                answers += [_until_end(row[1:]) for row in generated.tolist()]
        return answers

    def log_likelihoods(
        self, prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[float]:
        """Returns the mean log-likelihood of every target's tokens under its prompt."""
        torch, values = self._torch, []
        mean_loss = torch.nn.CrossEntropyLoss(ignore_index=IGNORED)
        with torch.inference_mode():
            for rows, answers in zip(batches(prompts), batches(targets), strict=True):
                labels = torch.from_numpy(pad_to_longest(answers, IGNORED))
                # Labels as such would make the model compute a loss that nobody reads.
                shifted = self._model.prepare_decoder_input_ids_from_labels(labels)
                logits = self._model(
                    **self._inputs(rows), decoder_input_ids=shifted, use_cache=False
                ).logits
                values += [
                    -float(mean_loss(row.float(), label))
                    for row, label in zip(logits, labels, strict=True)
                ]
        return values

    def _inputs(self, rows: Sequence[Sequence[int]]) -> dict[str, Any]:
        ids = pad_to_longest(rows, 0)
        self.tokens += sum(map(len, rows))
        self.padded_tokens += ids.size
        ids = self._torch.from_numpy(ids)
        return {"input_ids": ids, "attention_mask": (ids != 0).long()}

    def matmul_peak(self) -> float:
        """Returns PyTorch's FLOP/s in a large matrix product of the model's dtype."""
        size = 1536
        a = self._torch.ones((size, size), dtype=self._model.dtype)
        with self._torch.inference_mode():
            return common.fastest(lambda: a @ a, 2.0 * size**3, seconds=1.0)


def _until_end(ids: list[int]) -> list[int]:
    return ids[: ids.index(workload.EOS_ID) + 1] if workload.EOS_ID in ids else ids


def measure(way: AuthorsWay, pool: Any, num_instances: int, num_perturbations: int) -> dict:
    """Scores every task of `pool`; returns seconds by stage and one row per prompt."""
    words, clock = workload.vocabulary(), [time.perf_counter()]
    groups = [
        (name, instance_id, prompts)
        for name, task in pool.items()
        for instance_id, prompts in workload.task_prompts(task, num_instances, num_perturbations)
    ]
    clock.append(time.perf_counter())
    decoded = way.decode([prompts[0] for *_, prompts in groups])
    clock.append(time.perf_counter())
    answers = [words.decode(ids).strip() for ids in decoded]
    targets = [workload.target_ids(answer) for answer in answers]
    by_prompt = []
    for j in range(num_perturbations + 1):
        print(f"PyTorch: prompt {j} of {num_perturbations} of every instance", flush=True)
        by_prompt.append(way.log_likelihoods([prompts[j] for *_, prompts in groups], targets))
    clock.append(time.perf_counter())
    return {
        "host_seconds": clock[1] - clock[0],
        "decode_seconds": clock[2] - clock[1],
        "teacher_forcing_seconds": clock[3] - clock[2],
        "decoded_lengths": [len(ids) for ids in decoded],
        "padding_fraction": 1 - way.tokens / way.padded_tokens,
        "rows": [
            {
                "task": name, "instance_id": instance_id, "prompt": j, "answer": answer,
                "num_prompt_tokens": len(prompts[j]), "num_answer_tokens": len(target),
                "log_likelihood": by_prompt[j][i],
            }
            for i, ((name, instance_id, prompts), answer, target) in enumerate(
                zip(groups, answers, targets, strict=True)
            )
            for j in range(num_perturbations + 1)
        ],
    }  # fmt: skip
