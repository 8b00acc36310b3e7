"""The task map: which remaining tasks are ambiguous, easy or difficult for the model.

x is prompt uncertainty, y prediction probability (arXiv 2311.00288, section 5). The
authors use no thresholds: a category is the set of tasks that a strategy would select
(`selection.Ambiguous`, `Easy`, `Difficult`); all others are "other".
"""

from collections.abc import Mapping
from dataclasses import replace

from ait_jax.selection import selection
from ait_jax.selection.selection import SelectionContext

AMBIGUOUS, EASY, DIFFICULT, OTHER = "ambiguous", "easy", "difficult", "other"
CATEGORIES = (AMBIGUOUS, EASY, DIFFICULT, OTHER)
_STRATEGIES = {
    AMBIGUOUS: selection.Ambiguous(),
    EASY: selection.Easy(),
    DIFFICULT: selection.Difficult(),
}


def classify(context: SelectionContext) -> dict[str, str]:
    """Returns {task: "ambiguous" | "easy" | "difficult" | "other"}, tasks as in `context.scores`.

    Each category is what its strategy selects in this context. In a small pool categories would
    overlap, so each is at most a third of the tasks, and a task in several is ambiguous first,
    then easy or difficult, whichever ranks it better (easy if equal).

    Raises:
      UserError: as `selection.select`.
    """
    tasks = context.scores.tasks
    category_of = dict.fromkeys(tasks, OTHER)
    if not tasks:
        return category_of
    size = min(context.quotas.num_tasks, max(1, len(tasks) // 3))
    context = replace(context, quotas=replace(context.quotas, num_tasks=size))
    place_of: dict[str, int] = {}
    for category, strategy in _STRATEGIES.items():
        for place, task in enumerate(selection.select(strategy, context).tasks):
            rival = category_of[task]
            if rival == OTHER or (rival == EASY and place < place_of[task]):
                category_of[task], place_of[task] = category, place
    return category_of


def ranked(context: SelectionContext, categories: Mapping[str, str]) -> dict[str, list[str]]:
    """Returns the "ambiguous", "easy" and "difficult" tasks, the most telling first.

    Args:
      categories: as from `classify`.
    """
    return {
        category: [t for t in strategy.rank(context.scores, context) if categories[t] == category]
        for category, strategy in _STRATEGIES.items()
    }
