"""Groups of prompts with a shared prefix as batches: the prefix once, what follows side by side.

What follows the prefix, a prompt's own tokens and its target, is of very different lengths in one
group. So it is not padded but packed: several texts to a row, and as many rows to a group as let
the least be computed. Sizes come in few steps, for every combination of them is a program, and
compiling one takes as long as computing thousands of tokens.

Shapes: G groups of a batch, each with P tokens of a prefix and R rows of Q tokens behind it, in
which T targets stand.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ait_jax.batching import Tokens, finer_lengths, pad_rows, padded_length, rows_per_batch
from ait_jax.scorer.shared_prefixes import SharedPrefix

# So many tokens of a row make its attention to itself as dear as all products with weights.
_ATTENTION_AS_DEAR = 2048
# Rows of a group, and groups of a batch; a group of more rows is run as several.
ROWS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64)
# Steps of the padded lengths of prefixes and rows; targets are padded to a share of their rows'
# tokens. Over the prompts of 180 NIV2 tasks in chunks of 17 (n = k = 10, lengths of answers drawn
# from 1 to 128) that makes 279 programs for 738 batches and 12% more tokens than are real; steps
# of 1.25 and 1.5 make 226 for 760 and 15%, steps of 1.5 and 2.0 make 155 for 784 and 22%.
# Compiling a program takes as long as computing 1,000 to 2,000 tokens.
_PREFIX_GROWTH, _WIDTH_GROWTH = 1.25, 1.15
_TARGET_SHARES = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)


class Packing(NamedTuple):
    """Texts to rows.

    Attributes:
      width: tokens of a row.
      rows: the texts of each row, by their numbers.
    """

    width: int
    rows: tuple[tuple[int, ...], ...]


@lru_cache(maxsize=1024)
def packed(lengths: tuple[int, ...], widths: tuple[int, ...]) -> Packing:
    """Returns the packing that costs least, of first fit decreasing at every width.

    Args:
      lengths: of the texts, none above the last of the ascending `widths`.
    """
    order = sorted(range(len(lengths)), key=lambda text: -lengths[text])
    best, least = None, float("inf")
    for width in widths:
        if width < lengths[order[0]]:
            continue
        rows = _first_fit(lengths, order, width)
        cost = padded_length(len(rows), ROWS) * width * (1 + width / _ATTENTION_AS_DEAR)
        if cost < least:
            best, least = Packing(width, tuple(map(tuple, rows))), cost
        if len(rows) == 1:
            break
    return best


def _first_fit(lengths: Sequence[int], order: Sequence[int], width: int) -> list[list[int]]:
    rows: list[list[int]] = []
    room: list[int] = []
    for text in order:
        row = next((i for i, free in enumerate(room) if free >= lengths[text]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(width)
        rows[row].append(text)
        room[row] -= lengths[text]
    return rows


class PackedGroups:
    """Prompts and targets of groups, and the shapes (P, R, Q, T) that they are padded to.

    Args:
      groups: with a prefix each, of at most 64 members.
      prompts, targets: token ids; the groups' members are places in them.
      longest: the longest prompt and target.
      tokens_per_batch: budget of padded tokens.
    """

    def __init__(
        self,
        groups: Sequence[SharedPrefix],
        prompts: Sequence[Tokens],
        targets: Sequence[Tokens],
        longest: tuple[int, int],
        tokens_per_batch: int,
    ):
        self.groups, self.prompts, self.targets = groups, prompts, targets
        self.tokens_per_batch = tokens_per_batch
        prefixes = finer_lengths((longest[0],), _PREFIX_GROWTH, multiple_of=32)
        widths = finer_lengths((sum(longest),), _WIDTH_GROWTH, multiple_of=32)
        self.packings = [self._packing(group, widths) for group in groups]
        self.shapes = [
            self._shape(group, packing, prefixes)
            for group, packing in zip(groups, self.packings, strict=True)
        ]

    def _packing(self, group: SharedPrefix, widths: tuple[int, ...]) -> Packing:
        # A target's last token is never read.
        lengths = [
            len(self.prompts[member]) - group.length + len(self.targets[member]) - 1
            for member in group.members
        ]
        return packed(tuple(lengths), widths)

    def _shape(
        self, group: SharedPrefix, packing: Packing, prefixes: Sequence[int]
    ) -> tuple[int, ...]:
        rows = padded_length(len(packing.rows), ROWS)
        places = [math.ceil(rows * packing.width * share) for share in _TARGET_SHARES]
        targets = padded_length(sum(len(self.targets[member]) for member in group.members), places)
        return (padded_length(group.length, prefixes), rows, packing.width, targets)

    def batches(
        self, shapes: Sequence[tuple[int, ...]], processes: int, multiple_of: int
    ) -> Iterator[tuple[tuple[int, ...], list[int]]]:
        """Yields (shape, places in `shapes`) of batches; each process has an equal part of them.

        A batch's groups agree in their rows, and it has the longest prefix and the most targets
        among them; what they do not fill repeats its first group.
        """
        alike: dict[tuple[int, int], list[int]] = {}
        for place, (_, rows, width, _) in enumerate(shapes):
            alike.setdefault((rows, width), []).append(place)
        for (rows, width), places in sorted(alike.items(), reverse=True):
            places = sorted(places, key=lambda place: (-shapes[place][0], -shapes[place][3], place))
            while places:
                tokens = shapes[places[0]][0] + rows * width
                size = rows_per_batch(tokens, self.tokens_per_batch // processes, multiple_of)
                # As equal as batches of so few sizes can be.
                equal = math.ceil(len(places) / math.ceil(len(places) / size) / multiple_of)
                size = min(size, padded_length(equal, (*ROWS, size)) * multiple_of)
                batch, places = places[:size], places[size:]
                targets = max(shapes[place][3] for place in batch)
                shape = (shapes[batch[0]][0], rows, width, targets)
                yield shape, batch + batch[:1] * (size - len(batch))

    def arrays(self, shape: tuple[int, ...], rows: Sequence[int | None]) -> list[np.ndarray]:
        """Returns the batch of the groups `rows`; None is a group of padding.

        Returns:
          int32 arrays: the prefixes [G, P]; of the rows behind them [G * R, Q] the tokens and the
          number of the text, 1 the first and 0 none; of the targets [G, T] where in the group's
          rows, one after the other, the token stands that each follows, and the targets.
        """
        length, num_rows, width, num_targets = shape
        prefixes = [self._prefix(group) for group in rows]
        tokens, texts = np.zeros((2, len(rows) * num_rows, width), np.int32)
        places, targets = np.zeros((2, len(rows), num_targets), np.int32)
        for slot, group in enumerate(rows):
            if group is None:
                continue
            prefix, members = self.groups[group]
            at_target = 0
            for row, packed_texts in enumerate(self.packings[group].rows):
                at = 0
                for number, text in enumerate(packed_texts, 1):
                    prompt, target = self.prompts[members[text]], self.targets[members[text]]
                    own = [*prompt[prefix:], *target[:-1]]
                    tokens[slot * num_rows + row, at : at + len(own)] = own
                    texts[slot * num_rows + row, at : at + len(own)] = number
                    last = row * width + at + len(prompt) - prefix - 1
                    where = slice(at_target, at_target + len(target))
                    places[slot, where] = range(last, last + len(target))
                    targets[slot, where] = target
                    at, at_target = at + len(own), where.stop
        return [pad_rows(prefixes, length), tokens, texts, places, targets]

    def _prefix(self, group: int | None) -> Tokens:
        if group is None:
            return ()
        length, members = self.groups[group]
        return self.prompts[members[0]][:length]

    def means(self, group: int, log_p_T: np.ndarray) -> Iterator[tuple[int, float]]:
        """Yields (member, mean over its target) from the group's token log-likelihoods."""
        members, at = self.groups[group].members, 0
        for text in itertools.chain.from_iterable(self.packings[group].rows):
            end = at + len(self.targets[members[text]])
            yield members[text], float(log_p_T[at:end].mean(dtype=np.float64))
            at = end

    def padded_tokens(self, arrays: Sequence[np.ndarray], rows: Sequence[int | None]) -> int:
        """Returns how many places of a batch hold a prompt's token or none."""
        members = [m for g in set(rows) - {None} for m in self.groups[g].members]
        return arrays[0].size + arrays[1].size - sum(len(self.targets[m]) - 1 for m in members)
