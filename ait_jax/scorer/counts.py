"""How many prompts were asked about, and how many of them the device did not have to see."""

from dataclasses import dataclass


@dataclass
class PromptCounts:
    """Prompts scored by this process; what an earlier one left is not counted again.

    Attributes:
      asked: rows of the table: (instance, prompt) pairs.
      from_decode: rows of original prompts whose value decoding had already summed.
      identical: rows that are copies of another with the same prompt and answer.
    """

    asked: int = 0
    from_decode: int = 0
    identical: int = 0

    def __iadd__(self, other: "PromptCounts") -> "PromptCounts":
        self.asked += other.asked
        self.from_decode += other.from_decode
        self.identical += other.identical
        return self

    def summary(self) -> dict[str, int]:
        """Returns {} or the figures of timings.jsonl."""
        if not self.asked:
            return {}
        return {
            "prompts_asked": self.asked,
            "prompts_from_decode": self.from_decode,
            "prompts_identical": self.identical,
        }

    def describe(self) -> str:
        return (
            f"{self.asked:,} prompts ({self.from_decode:,} taken from the decode, "
            f"{self.identical:,} identical)"
        )
