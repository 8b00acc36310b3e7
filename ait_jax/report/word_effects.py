"""Where prompt uncertainty comes from, word by word."""

import numpy as np


def word_effects(kept: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Returns how much more the answers move under the forms that lack a word.

    For every word of the definition: the mean change of the forms without it, minus the mean
    change of the forms with it. Positive: losing the word moves the answers' likelihood. Words
    are dropped together, and examples with them, so that with few forms a word shares the blame
    of its neighbours.

    Args:
      kept: bool[forms, words], whether a perturbed definition has a word of the original.
      change: float64[forms], mean over instances of |p_i0 - p_ij|; NaN for a form that was not
        scored.

    Returns:
      float64[words], NaN for a word that all forms keep, or all lack.
    """
    scored = np.isfinite(change)
    kept = np.asarray(kept, bool)[scored]
    change = np.asarray(change, np.float64)[scored]
    num_kept = kept.sum(axis=0)
    num_dropped = len(kept) - num_kept
    with np.errstate(invalid="ignore", divide="ignore"):
        return (change @ ~kept) / num_dropped - (change @ kept) / num_kept
