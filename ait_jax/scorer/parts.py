"""What every kind of run has: a model, a pool, and how the model is asked about the pool."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax.errors import UserError, shown
from ait_jax.models.interface import Model, check_positions, gin_name
from ait_jax.pool import TaskPool
from ait_jax.prompts.prompts import Encoding, TkInstructEncoding
from ait_jax.prompts.vocabulary import Vocabulary
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer.batching import LengthBuckets
from ait_jax.scorer.racing import Racing
from ait_jax.scorer.scorer import Scorer


@dataclass(frozen=True, kw_only=True)
class ModelParts:
    """A model, a pool, how the model is asked about it, and where the answers go.

    Args:
      model_dir: the run directory; the same configuration continues there.
      pool: all tasks.
      model, vocabulary: what reads the prompts.
      init_checkpoint: parameters to start from (T5X, Orbax, Hugging Face or safetensors);
        None draws them at random.
      fallback_to_scratch: draw what `init_checkpoint` lacks at random and ignore what the model
        lacks; otherwise both are refused.
      partitioner: the mesh.
      encoding: how an instruction and an instance become a prompt.
      buckets: the lengths that prompts and answers are padded to; the last ones are the
        maximum source and target length.
      tokens_per_batch: padded prompt tokens of a scoring batch; decoding takes twice as many.
      length_growth: the most that a padded prompt length may be, as a multiple of the next
        shorter one; smaller means less padding and more programs to compile.
      seed: of every draw.
      report: make report.html after every round; `ait-jax report` can also make it later.
    """

    model_dir: str
    pool: TaskPool
    model: Model
    vocabulary: Vocabulary
    init_checkpoint: str | None = None
    fallback_to_scratch: bool = False
    partitioner: Partitioner = Partitioner()
    encoding: Encoding = TkInstructEncoding()
    buckets: LengthBuckets = LengthBuckets()
    tokens_per_batch: int = 16384
    length_growth: float = 1.06
    seed: int = 42
    report: bool = True

    def __post_init__(self) -> None:
        if self.length_growth <= 1:
            raise UserError(
                f"LENGTH_GROWTH = {self.length_growth} must be above 1: 1.06, for example."
            )
        if self.encoding.max_source_length != self.buckets.max_source_length:
            raise UserError(
                f"{type(self.encoding).__name__}.max_source_length = "
                f"{self.encoding.max_source_length} differs from the longest of "
                f"LengthBuckets.inputs = {tuple(self.buckets.inputs)}; make them equal."
            )
        check_vocabulary(self.vocabulary, self.model)
        check_positions(
            self.model.config, self.buckets.max_source_length, self.buckets.max_target_length
        )


@dataclass(frozen=True, kw_only=True)
class Parts(ModelParts):
    """What scores tasks, in a run (`experiment`) or alone (`scoring`).

    Args:
      scorer: asks about a task under its own and perturbed instructions.
      tasks_per_round: size of a selection, and of each category of a task map; a list has one
        number for each selection.
      cls_ratio: share of CLS tasks in a selection; None ranks CLS and GEN together.
      racing: stop perturbing tasks whose place in the selection is certain (`racing`).
      racing_settings: after how many prompts that is judged, and how certain is certain.
      Others: see `ModelParts`.
    """

    scorer: Scorer
    tasks_per_round: int | Sequence[int] = 68
    cls_ratio: float | None = None
    racing: bool = False
    racing_settings: Racing = Racing()

    def __post_init__(self) -> None:
        _check_schedule(self.tasks_per_round)
        super().__post_init__()
        perturbation = self.scorer.perturbation
        if getattr(perturbation, "needs_examples", False) and not self.encoding.shows_examples:
            raise UserError(
                f"{type(perturbation).__name__} perturbs examples, which "
                f"{type(self.encoding).__name__} does not show: every task's prompt uncertainty "
                "would be 0. Perturb the definition (PERTURBED_PARTS = 'TD') or show examples "
                "(ENCODING)."
            )

    def tasks_of_round(self, round_index: int) -> int:
        """Returns how many tasks the selection after a round takes."""
        return tasks_of_round(self.tasks_per_round, round_index)


def tasks_of_round(tasks_per_round: int | Sequence[int], round_index: int) -> int:
    """Returns the size of a round's selection from TASKS_PER_ROUND, a number or a list."""
    return tasks_per_round if isinstance(tasks_per_round, int) else tasks_per_round[round_index]


def _check_schedule(tasks_per_round: int | Sequence[int]) -> None:
    sizes = [tasks_per_round] if isinstance(tasks_per_round, int) else list(tasks_per_round)
    if not sizes or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
        raise UserError(
            f"TASKS_PER_ROUND = {shown(tasks_per_round)} must be a whole number of at least 1, or "
            "a list of them, one for each selection."
        )


def check_vocabulary(vocabulary: Vocabulary, model: Model) -> None:
    """Refuses a vocabulary with more ids than the model has embeddings."""
    if vocabulary.vocab_size > model.config.vocab_size:
        raise UserError(
            f"The vocabulary {vocabulary.path} has {vocabulary.vocab_size} ids, but "
            f"{gin_name(model.config)}.vocab_size = {model.config.vocab_size}; set "
            "VOCABULARY_PATH to the model's own vocabulary or raise vocab_size."
        )


def check_positive(settings: Any, *names: str) -> None:
    """Refuses attributes below 1; errors call them as gin's macros do, in capitals."""
    for name in names:
        if getattr(settings, name) < 1:
            raise UserError(f"{name.upper()} = {getattr(settings, name)} must be at least 1.")
