"""What a report needs beyond a run's files: what the run was asked to do, and its pool."""

from dataclasses import dataclass
from typing import Any

from ait_jax.config.config_values import ConfigValues, Reference
from ait_jax.errors import UserError
from ait_jax.pool import TaskPool
from ait_jax.runtime.terminal import quiet_stderr

_MOST_PROMPTS = 10_000  # of a task or an instance
_CLASSES = ("Experiment", "Scoring", "Continual")


@dataclass(frozen=True)
class Settings:
    """A run's settings as far as they are known.

    Attributes:
      rounds, needs_scores: None if unknown.
      num_instances, num_perturbations, answers: of `scorer.Scorer`.
      perturbation, encoding, vocabulary, pool: the parts; None if they cannot be opened.
      problem: why the pool or another part cannot be opened.
    """

    rounds: int | None = None
    evaluate_base: bool = True
    needs_scores: bool | None = None
    strategy: str = ""
    seed: int = 0
    num_instances: int = 0
    num_perturbations: int = 0
    answers: str = "predictions"
    perturbation: Any = None
    encoding: Any = None
    vocabulary: Any = None
    pool: TaskPool | None = None
    problem: str = ""


def of_parts(parts: Any, pool: TaskPool) -> Settings:
    """Returns the settings of a run in progress: of its `parts.ModelParts`.

    Args:
      pool: the run's, which may have been extended.
    """
    scorer, strategy = getattr(parts, "scorer", None), getattr(parts, "strategy", None)
    scored = ("num_instances", "num_perturbations", "answers", "perturbation")
    return Settings(
        rounds=getattr(parts, "rounds", None),
        evaluate_base=getattr(parts, "evaluate_base", False),
        needs_scores=strategy.needs_scores if strategy else None,
        strategy=strategy.name if strategy else "",
        seed=parts.seed,
        encoding=parts.encoding,
        vocabulary=parts.vocabulary,
        pool=pool,
        **{name: getattr(scorer, name) for name in scored if scorer is not None},
    )


def of_config(text: str, seed: int, folder: Any = "") -> Settings:
    """Returns what config.gin says; parts that it does not name are None, `problem` says why.

    Args:
      folder: where it is from, for `ConfigValues`.
    """
    try:
        config = ConfigValues(text, folder)
    except UserError as error:
        return Settings(seed=seed, problem=str(error))
    bound = next((v for name in _CLASSES if (v := config.of_class(name)) is not None), {})
    reference, scope = _followed(config, bound.get("scorer"))
    scorer = config.of_reference(reference, scope) if isinstance(reference, Reference) else {}
    strategy, _ = _followed(config, bound.get("strategy"))
    name = strategy.selector.rpartition(".")[2] if isinstance(strategy, Reference) else ""
    problems: list[str] = []
    parts = {"perturbation": _part(config, scorer, "perturbation", problems)}
    for part in ("encoding", "vocabulary", "pool"):
        parts[part] = _part(config, bound, part, problems)
    return Settings(
        rounds=_literal(config, bound, "rounds", int),
        evaluate_base=_literal(config, bound, "evaluate_base", bool) is not False,
        needs_scores=_needs_scores(name),
        strategy=name,
        seed=seed,
        num_instances=_count(config, scorer, "num_instances"),
        num_perturbations=_count(config, scorer, "num_perturbations"),
        answers=_literal(config, scorer, "answers", str) or "predictions",
        problem=problems[-1] if problems else "",
        **parts,
    )


def _followed(config: ConfigValues, value: Any) -> tuple[Any, tuple[str, ...]]:
    try:
        return config.followed(value)
    except UserError:
        return None, ()


def _count(config: ConfigValues, values: dict[str, Any], name: str) -> int:
    """Returns a number of prompts, 0 where it is missing or none that a run could have had."""
    value = _literal(config, values, name, int) or 0
    return value if 0 <= value <= _MOST_PROMPTS else 0


def _literal(config: ConfigValues, values: dict[str, Any], name: str, kind: type) -> Any:
    value, _ = _followed(config, values.get(name))
    return value if isinstance(value, kind) else None


def _needs_scores(strategy: str) -> bool | None:
    from ait_jax.selection import selection

    kind = getattr(selection, strategy, None)
    if isinstance(kind, type) and issubclass(kind, selection.Strategy):
        return kind.needs_scores
    return None


def _part(config: ConfigValues, values: dict[str, Any], name: str, problems: list[str]) -> Any:
    if name not in values:
        if name == "pool":
            problems.append("config.gin names no pool")
        return None
    try:
        with quiet_stderr():
            return config.build(values[name])
    except (UserError, OSError, ImportError) as error:
        problems.append(str(error).rstrip("."))
        return None
