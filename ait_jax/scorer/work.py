"""Scoring in figures: what was asked, and what the engine did for it."""

import operator
import time
from dataclasses import asdict, astuple, dataclass

from ait_jax.runtime.hardware import peak_flops


@dataclass
class Work:
    """What an engine has read since the last `clear`.

    Attributes:
      prompts: rows that the device ran for.
      tokens: prompt tokens of them, without padding.
      shared_tokens: of `tokens` those that were not run again for another row (`shared_prefixes`).
      padded_tokens: prompt tokens that the device saw.
      flops: model FLOPs of the real tokens that were run (decoding counts the answer's tokens).
      seconds: from the first dispatch of a call to its last result on the host, summed.
      compile_wait: seconds of these in which a batch waited for its program.
      host_wait: seconds between two calls, or inside one, in which the device had nothing to
        do because the host was not ready; without `compile_wait`.
    """

    prompts: int = 0
    tokens: int = 0
    shared_tokens: int = 0
    padded_tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    compile_wait: float = 0.0
    host_wait: float = 0.0

    def __post_init__(self) -> None:
        self._idle_since: float | None = None

    def clear(self) -> None:
        """Sets everything back to zero."""
        self.__init__()

    def device_idle(self) -> None:
        """Says that the device has finished all it was given."""
        self._idle_since = time.perf_counter()

    def pause(self) -> None:
        """Says that the device works for others now: the time until its next call is no wait."""
        self._idle_since = None

    def device_busy(self, compile_wait: float = 0.0) -> None:
        """Says that the device is given work, after `compile_wait` seconds for its program."""
        self.compile_wait += compile_wait
        if self._idle_since is not None:
            self.host_wait += max(0.0, time.perf_counter() - self._idle_since - compile_wait)
            self._idle_since = None

    def summary(self) -> dict[str, int | float]:
        """Returns {} or the figures of timings.jsonl."""
        if not self.tokens:
            return {}
        computed = self.tokens - self.shared_tokens
        return {
            "prompts": self.prompts,
            "tokens": self.tokens,
            **({"tokens_computed": computed} if self.shared_tokens else {}),
            "padding_fraction": round(1 - computed / self.padded_tokens, 4),
            "tokens_per_second": round(self.tokens / self.seconds, 1),
            "mfu": round(self.flops / self.seconds / peak_flops(), 4),
            "compile_wait": round(self.compile_wait, 3),
            "host_wait": round(self.host_wait, 3),
        }

    def speed(self) -> dict[str, float]:
        """Returns what a live view shows; safe to call from another thread.

        MFU only once the peak is known: measuring it now would disturb.
        """
        if not self.tokens or not self.seconds:
            return {}
        speed = {"tokens_per_second": self.tokens / self.seconds}
        if peak_flops.cache_info().currsize:
            speed["mfu"] = self.flops / self.seconds / peak_flops()
        return speed

    def describe(self) -> str:
        """Returns "" or the same as text for the terminal."""
        figures = self.summary()
        if not figures:
            return ""
        fewer = ""
        if "tokens_computed" in figures:
            fewer = f"computed {figures['tokens'] / figures['tokens_computed']:.1f}x fewer, "
        return (
            f", {figures['prompts']:,} prompts at {figures['tokens_per_second']:,.0f} tokens/s, "
            f"{fewer}padding {figures['padding_fraction']:.1%}, MFU {figures['mfu']:.1%}"
        )


@dataclass(frozen=True)
class PromptCounts:
    """How many prompts this process scored, and how many of them the device did not see.

    What an earlier process left is not counted.

    Attributes:
      asked: rows of the table: (instance, prompt) pairs.
      from_decode: rows of original prompts whose value decoding had already summed.
      identical: rows that are copies of another with the same prompt and answer.
    """

    asked: int = 0
    from_decode: int = 0
    identical: int = 0

    def __add__(self, other: "PromptCounts") -> "PromptCounts":
        return PromptCounts(*map(operator.add, astuple(self), astuple(other)))

    def summary(self) -> dict[str, int]:
        """Returns {} or the figures of timings.jsonl."""
        if not self.asked:
            return {}
        return {f"prompts_{name}": count for name, count in asdict(self).items()}

    def describe(self) -> str:
        """Returns the same as text for the terminal."""
        return (
            f"{self.asked:,} prompts ({self.from_decode:,} taken from the decode, "
            f"{self.identical:,} identical)"
        )
