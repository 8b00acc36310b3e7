"""One scoring job, by this library and by what a user would pick instead of it.

What all sides share lies in a folder: a random model as Hugging Face's folder and as CTranslate2's,
the prompts, and the answers to teacher-force, which transformers has decoded. A side decodes the
original prompts greedily, then teacher-forces all prompts, in a process of its own. Libraries are
imported where they are used: what makes batches and tables can be tested without them.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np
import workload

from ait_jax.prompts.vocabulary import Vocabulary

# Of 512 to 16,384, what took the least processor time on an AMD EPYC; MKL took more there.
TOKENS_PER_BATCH = {"ctranslate2": 1024, "transformers": 1024}


def read(folder: Path) -> tuple[list[list[list[int]]], list[list[int]]]:
    """Returns prompts [instance][j] and targets [instance] of `prepare`."""
    job = json.loads((folder / "job.json").read_text())
    return job["prompts"], job["targets"]


def pairs_of(
    prompts: Sequence[Sequence[list[int]]], targets: Sequence[list[int]]
) -> tuple[list[list[int]], list[list[int]]]:
    """Returns every prompt of every instance, and beside it the instance's target."""
    rows = [(row, t) for of_one, t in zip(prompts, targets, strict=True) for row in of_one]
    return [row for row, _ in rows], [target for _, target in rows]


def batches_by_tokens(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Returns rows in batches of at most `most` padded tokens (or one row), longest first."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not batches or lengths[batches[-1][0]] * (len(batches[-1]) + 1) > most:
            batches.append([])
        batches[-1].append(row)
    return batches


# --- what the sides share ---


def prepare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Writes job.json; `write_models` was called before. Returns what the tables say of it."""
    chosen = workload.choose(options.tasks)
    prompts = [
        of_instance
        for task in chosen.pool.values()
        for _, of_instance in workload.task_prompts(task, options.instances, options.perturbations)
    ]
    model = Transformers(folder, options.threads)
    decoded = model.decode([of_instance[0] for of_instance in prompts], options.answer_tokens)
    targets = [target_of(answer, options.answer_tokens) for answer in decoded]
    common.save(folder / "job.json", {"prompts": prompts, "targets": targets})
    rows, repeated = pairs_of(prompts, targets)
    config = workload.t5_config(options.model_size, "float32")
    lengths = [(len(p), len(t)) for p, t in zip(rows, repeated, strict=True)]
    answered = [(len(of_one[0]), len(t)) for of_one, t in zip(prompts, targets, strict=True)]
    return {
        "source": chosen.source,
        "prompts": len(rows),
        "instances": len(prompts),
        "mean_prompt_tokens": float(np.mean([length for length, _ in lengths])),
        "target_tokens": float(np.mean([length for _, length in lengths])),
        "teacher_forcing_flops": sum(config.flops_per_example(*pair) for pair in lengths),
        "decode_flops": sum(config.flops_per_example(*pair) for pair in answered),
    }


def target_of(answer: Sequence[int], most: int) -> list[int]:
    """Returns an answer as it is scored: ended, and `most` tokens long at most."""
    ids = list(answer)
    ids = ids[: ids.index(workload.EOS_ID)] if workload.EOS_ID in ids else ids
    return [*ids[: most - 1], workload.EOS_ID]


def write_models(options: argparse.Namespace, folder: Path) -> None:
    """Writes the same random model as model/, a folder of Hugging Face's, and as ctranslate2/."""
    import jax

    from ait_jax.models.checkpoints import hugging_face
    from ait_jax.models.parameters import init_params
    from ait_jax.models.t5 import Transformer

    config = workload.t5_config(options.model_size, "float32")
    params = init_params(Transformer(config), common.SEED)[0]
    (folder / "model").mkdir()
    hugging_face.write(folder / "model", jax.tree.map(np.asarray, params), config)
    if "scoring" in options.parts:
        _convert(folder / "model", folder / "ctranslate2")


def _convert(source: Path, to: Path) -> None:
    import ctranslate2
    import transformers
    from ctranslate2.specs import model_spec

    class Converter(ctranslate2.converters.TransformersConverter):
        def load_tokenizer(self, *args: Any, **kwargs: Any) -> "_Numbers":
            return _Numbers(transformers.AutoConfig.from_pretrained(source).vocab_size)

        def _load(self) -> Any:
            spec = super()._load()
            config = transformers.AutoConfig.from_pretrained(source)
            if not config.scale_decoder_outputs:
                # transformers 5 says of every T5 that it is tied; 4.8.5's converter believes it.
                spec.decoder.scale_outputs = model_spec.OPTIONAL
            return spec

    Converter(str(source)).convert(str(to))


class _Numbers:
    """A tokenizer's vocabulary whose tokens are their ids: no two are the same."""

    pad_token, eos_token, unk_token = "<pad>", "</s>", "<unk>"

    def __init__(self, size: int) -> None:
        self._tokens = [self.pad_token, self.eos_token, self.unk_token, *map(str, range(3, size))]

    def get_vocab(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self._tokens)}

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        return self._tokens[ids] if isinstance(ids, int) else [self._tokens[i] for i in ids]

    def to_ids(self, tokens: Sequence[str]) -> list[int]:
        special = {self.pad_token: 0, self.eos_token: 1, self.unk_token: 2}
        return [special[token] if token in special else int(token) for token in tokens]


# --- the sides ---


class _NumberedAnswers(Vocabulary):
    """The vocabulary with answers as numbers: random models answer with tokens that it lacks."""

    def decode(self, ids: Any) -> str:
        return " ".join(str(int(token)) for token in ids)

    def encode_answer(self, text: str) -> list[int]:
        return list(map(int, text.split()))


def measure(options: argparse.Namespace, side: str, folder: Path) -> dict[str, Any]:
    """Returns seconds of the whole job and of its stages, log-likelihoods and answers of a side."""
    if side == "ait-jax":
        return measure_ours(options, folder)
    prompts, targets = read(folder)
    model: Any = (
        Transformers(folder, options.threads)
        if side == "transformers"
        else CTranslate2(folder, options, side.removeprefix("ctranslate2-"))
    )
    rows, repeated = pairs_of(prompts, targets)
    model.log_likelihoods(rows[:2], repeated[:2])  # warm
    stopwatch = common.Stopwatch()
    answers = model.decode([of_one[0] for of_one in prompts], options.answer_tokens)
    decode_seconds = stopwatch.read()["seconds"]
    values = model.log_likelihoods(rows, repeated)
    result = stopwatch.read()
    return {
        **result,
        "decode_seconds": decode_seconds,
        "teacher_forcing_seconds": result["seconds"] - decode_seconds,
        "values": values,
        "targets": [target_of(answer, options.answer_tokens) for answer in answers],
    }


def measure_ours(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Scores twice: the first pass compiles, the second is the measurement.

    The whole job is the scorer's, from texts to the table on the disk. It takes the originals'
    values from the decode, so teacher forcing of all prompts is measured apart from it.
    """
    from timed_engine import TimedEngine

    from ait_jax.models.checkpoints.checkpoints import open_checkpoint
    from ait_jax.models.t5 import Transformer
    from ait_jax.scorer.batching import LengthBuckets

    pool = workload.choose(options.tasks).pool
    model = Transformer(workload.t5_config(options.model_size, "float32"))
    buckets = LengthBuckets(targets=(options.answer_tokens,))
    engine = TimedEngine.of(model, options.tokens_per_batch, buckets)
    params = engine.place(open_checkpoint(folder / "model").load())
    rows, targets = pairs_of(*read(folder))
    passes = [_score_all(options, engine, params, pool, rows, targets) for _ in range(2)]
    cold, result = passes
    compiling = sum(cold[name] - result[name] for name in ("seconds", "teacher_forcing_seconds"))
    return {**result, "compile_seconds": compiling}


def _score_all(options, engine, params, pool, rows, targets) -> dict[str, Any]:
    from timed_engine import score

    from ait_jax.scorer import likelihoods

    engine.restart()
    words = _NumberedAnswers(workload.vocabulary().path)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "likelihoods.parquet"
        stopwatch = common.Stopwatch()
        score(
            pool, path, engine, params, vocabulary=words,
            instances=options.instances, perturbations=options.perturbations,
        )  # fmt: skip
        result = stopwatch.read()
        columns = likelihoods.read_rows(path)
    padding = engine.work.summary()["padding_fraction"]
    answers = columns["answer"][:: options.perturbations + 1]
    decode_seconds = engine.decode_seconds
    start = time.perf_counter()
    values = engine.log_likelihoods(params, rows, targets)
    return {
        **result,
        "decode_seconds": decode_seconds,
        "teacher_forcing_seconds": time.perf_counter() - start,
        "padding": padding,
        "values": values.tolist(),
        "targets": [
            target_of(words.encode_answer(answer), options.answer_tokens) for answer in answers
        ],
    }


class CTranslate2:
    """CTranslate2's translator, which sorts rows by length and splits them into batches itself."""

    def __init__(self, folder: Path, options: argparse.Namespace, compute_type: str) -> None:
        import ctranslate2

        self._model = ctranslate2.Translator(
            str(folder / "ctranslate2"),
            compute_type=compute_type,
            inter_threads=options.ctranslate2_workers,
            intra_threads=options.threads // options.ctranslate2_workers,
        )
        size = json.loads((folder / "model" / "config.json").read_text())["vocab_size"]
        self._words = _Numbers(size)
        self._batching = {
            "max_batch_size": TOKENS_PER_BATCH["ctranslate2"],
            "batch_type": "tokens",
            "max_input_length": 0,
        }

    def decode(self, prompts: Sequence[list[int]], num_tokens: int) -> list[list[int]]:
        """Returns greedy answers of `num_tokens` tokens at most."""
        results = self._model.translate_batch(
            list(map(self._words.convert_ids_to_tokens, prompts)),
            beam_size=1, max_decoding_length=num_tokens, **self._batching,
        )  # fmt: skip
        return [self._words.to_ids(result.hypotheses[0]) for result in results]

    def log_likelihoods(
        self, prompts: Sequence[list[int]], targets: Sequence[list[int]]
    ) -> list[float]:
        """Returns the mean log-likelihood of every target's tokens under its prompt."""
        to_tokens = self._words.convert_ids_to_tokens
        results = self._model.score_batch(
            list(map(to_tokens, prompts)),
            [to_tokens(target[:-1]) for target in targets],  # it adds end-of-sequence
            **self._batching,
        )
        return [float(np.mean(result.log_probs)) for result in results]


class Transformers:
    """transformers' T5 in float32 with its fastest attention; batches of like lengths."""

    def __init__(self, folder: Path, threads: int) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        self._torch = torch
        self._model = transformers.T5ForConditionalGeneration.from_pretrained(
            folder / "model", dtype=torch.float32, attn_implementation="sdpa"
        ).eval()

    def decode(self, prompts: Sequence[list[int]], num_tokens: int) -> list[list[int]]:
        """Returns greedy answers of `num_tokens` tokens at most."""
        answers: list[Any] = [None] * len(prompts)
        for rows, inputs in self._batches(prompts):
            with self._torch.inference_mode():
                generated = self._model.generate(
                    **inputs, max_new_tokens=num_tokens, do_sample=False, num_beams=1
                )
            for row, ids in zip(rows, generated.tolist(), strict=True):
                answers[row] = ids[1:]  # after the decoder's start
        return answers

    def log_likelihoods(
        self, prompts: Sequence[list[int]], targets: Sequence[list[int]]
    ) -> list[float]:
        """Returns the mean log-likelihood of every target's tokens under its prompt."""
        from authors_way import IGNORED, pad_to_longest

        values = np.zeros(len(prompts))
        for rows, inputs in self._batches(prompts):
            labels = pad_to_longest([targets[row] for row in rows], IGNORED)
            counts = (labels != IGNORED).sum(axis=1)
            labels = self._torch.from_numpy(labels)
            # Labels as such would make the model compute a loss that nobody reads.
            shifted = self._model.prepare_decoder_input_ids_from_labels(labels)
            with self._torch.inference_mode():
                logits = self._model(**inputs, decoder_input_ids=shifted, use_cache=False).logits
                losses = self._torch.nn.functional.cross_entropy(
                    logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
                )
            values[rows] = -losses.sum(dim=1).numpy() / counts
        return values.tolist()

    def _batches(self, prompts: Sequence[list[int]]) -> Any:
        from authors_way import pad_to_longest

        for rows in batches_by_tokens(list(map(len, prompts)), TOKENS_PER_BATCH["transformers"]):
            ids = self._torch.from_numpy(pad_to_longest([prompts[row] for row in rows], 0))
            yield rows, {"input_ids": ids, "attention_mask": (ids != 0).long()}
