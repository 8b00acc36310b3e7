"""What a report needs to know of a run beyond its files: what was to be done, and the pool."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ait_jax.config.config_values import ConfigValues, Reference
from ait_jax.errors import UserError
from ait_jax.pool.pool import TaskPool

if TYPE_CHECKING:  # it loads JAX, which `ait-jax report` has no use for
    from ait_jax.rounds.parts import ModelParts

_CLASSES = ("Experiment", "Scoring", "Continual")


@dataclass(frozen=True)
class Settings:
    """A run's settings, as far as they are known.

    Attributes:
      rounds: trainings; None where that is not known.
      evaluate_base: whether the base model is evaluated.
      needs_scores: whether the strategy does; None where that is not known.
      strategy: its name.
      seed: of the run.
      num_instances, num_perturbations, answers: as of `scorer.Scorer`.
      perturbation, encoding, vocabulary, pool: the parts; None where they cannot be had.
      problem: why the pool, or another part, cannot be had.
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


def of_parts(parts: "ModelParts", pool: TaskPool) -> Settings:
    """Returns the settings of a run at work, whose pool may have been extended."""
    scorer, strategy = getattr(parts, "scorer", None), getattr(parts, "strategy", None)
    scored = {
        name: getattr(scorer, name)
        for name in ("num_instances", "num_perturbations", "answers", "perturbation")
        if scorer is not None
    }
    return Settings(
        rounds=getattr(parts, "rounds", None),
        evaluate_base=getattr(parts, "evaluate_base", False),
        needs_scores=strategy.needs_scores if strategy else None,
        strategy=strategy.name if strategy else "",
        seed=parts.seed,
        encoding=parts.encoding,
        vocabulary=parts.vocabulary,
        pool=pool,
        **scored,
    )


def of_config(text: str, seed: int) -> Settings:
    """Returns what config.gin tells; a part that it does not is None, and `problem` says why.

    Args:
      text: of config.gin.
      seed: of the run.
    """
    try:
        config = ConfigValues(text)
    except UserError as error:
        return Settings(seed=seed, problem=str(error))
    bound = next((v for name in _CLASSES if (v := config.of_class(name)) is not None), {})
    scorer = _bound_to(config, bound.get("scorer"))
    problems: list[str] = []

    def part(values: dict[str, Any], name: str) -> Any:
        return _part(lambda: config.build(values[name]), name, values, problems)

    strategy = _reference(config, bound.get("strategy"))
    return Settings(
        rounds=_literal(config, bound, "rounds", int),
        evaluate_base=_literal(config, bound, "evaluate_base", bool) is not False,
        needs_scores=_needs_scores(strategy),
        strategy=strategy.selector.rpartition(".")[2] if strategy else "",
        seed=seed,
        num_instances=_literal(config, scorer, "num_instances", int) or 0,
        num_perturbations=_literal(config, scorer, "num_perturbations", int) or 0,
        answers=_literal(config, scorer, "answers", str) or "predictions",
        perturbation=part(scorer, "perturbation"),
        encoding=part(bound, "encoding"),
        vocabulary=part(bound, "vocabulary"),
        pool=part(bound, "pool"),
        problem=problems[-1] if problems else "",
    )


def _literal(config: ConfigValues, values: dict[str, Any], name: str, kind: type) -> Any:
    try:
        value, _ = config.followed(values.get(name))
    except UserError:
        return None
    return value if isinstance(value, kind) else None


def _reference(config: ConfigValues, value: Any) -> Reference | None:
    try:
        found, _ = config.followed(value)
    except UserError:
        return None
    return found if isinstance(found, Reference) else None


def _bound_to(config: ConfigValues, value: Any) -> dict[str, Any]:
    """Returns what is bound to the function that a value refers to."""
    reference = _reference(config, value)
    if reference is None:
        return {}
    return config.of_reference(reference, config.followed(value)[1])


def _needs_scores(strategy: Reference | None) -> bool | None:
    from ait_jax.selection import selection

    name = strategy.selector.rpartition(".")[2] if strategy else ""
    kind = getattr(selection, name, None)
    if isinstance(kind, type) and issubclass(kind, selection.Strategy):
        return kind.needs_scores
    return None


def _part(build: Callable[[], Any], name: str, values: dict[str, Any], problems: list[str]) -> Any:
    if name not in values:
        if name == "pool":
            problems.append("config.gin names no pool")
        return None
    from ait_jax.runtime.terminal import quiet_stderr

    try:
        with quiet_stderr():
            return build()
    except (UserError, OSError, ImportError) as error:
        problems.append(str(error).rstrip("."))
        return None
