"""Groups of prompts with a shared prefix as long rows: the prefix once, then what follows it.

Groups stand one after the other in a row until it is full; one that does not fit into the rest is
split, and its prefix is run again. So hardly anything is padded, and nearly all rows have one
length. What a token sees is data (`models.group_windows`). Besides its length, a row's shape has
only the keys of its longest window and the number of targets, both in a few steps, so that a few
programs serve all rows.

Shapes: B rows of a batch, N tokens of a row, C blocks of them, T targets of a row.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ait_jax.models.group_windows import BLOCK
from ait_jax.scorer.batching import Batches, Shape, Tokens, finer_lengths, padded_length
from ait_jax.scorer.shared_prefixes import SharedPrefix

# A row that is not full has a multiple of this fraction of the full length.
_PARTS = 8
# How many groups are considered for the rest of a row. The further away, the less alike are their
# windows, and where attention is not in steps all blocks pay for the longest.
_LOOK_AHEAD = 32
# Steps of a row's longest window, and shares of a row's tokens that may be targets. Over the
# prompts of 180 NIV2 tasks in chunks of 17 (n = k = 10, lengths of answers drawn from 1 to 128,
# rows of 4,096) that makes 25 programs for 740 rows, whose longest windows have 772 keys on average
# (38 and 713 with steps of 1.25), and 4% more tokens than are real.
_GROWTH = 1.5
_TARGET_SHARES = (1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)


class GroupRows:
    """Prompts and targets of groups in rows, and the rows' shapes (N, longest window, T).

    Args:
      groups: their members are places in prompts and targets.
      prompts, targets: token ids.
      most: tokens of a row, at least the longest prompt and target together.
      at_a_time: rows of a batch; they are shorter where there are too few tokens to fill them.

    Attributes:
      rows: the groups of each row; a group may be in several, with other members in each.
    """

    def __init__(
        self,
        groups: Sequence[SharedPrefix],
        prompts: Sequence[Tokens],
        targets: Sequence[Tokens],
        most: int,
        at_a_time: int = 1,
    ) -> None:
        self.prompts, self.targets = prompts, targets
        full = math.ceil(most / BLOCK) * BLOCK
        parts = {math.ceil(full * part / _PARTS / BLOCK) * BLOCK for part in range(1, _PARTS + 1)}
        self._lengths = sorted(parts)
        self._windows = finer_lengths((full,), _GROWTH, multiple_of=BLOCK)
        longest = max((group.length + self._longest(group) for group in groups), default=0)
        tokens = math.ceil(sum(map(self._size, groups)) / at_a_time)
        room = padded_length(max(longest, min(tokens, full)), self._lengths)
        self.rows = self._filled(groups, room)
        self.shapes = [self._shape(row) for row in self.rows]

    # --- groups to rows ---

    def _own_length(self, group: SharedPrefix, member: int) -> int:
        """Returns the number of a text's tokens after its prefix; a target's last is never read."""
        return len(self.prompts[member]) - group.length + len(self.targets[member]) - 1

    def _longest(self, group: SharedPrefix) -> int:
        return max(self._own_length(group, member) for member in group.members)

    def _window(self, group: SharedPrefix) -> int:
        """Returns how many keys a block of the group may need."""
        return group.length + self._longest(group) + BLOCK - 1

    def _size(self, group: SharedPrefix) -> int:
        return group.length + sum(self._own_length(group, member) for member in group.members)

    def _filled(self, groups: Sequence[SharedPrefix], length: int) -> list[list[SharedPrefix]]:
        """Fills rows of a length with groups, those with long windows first."""

        def order(group: SharedPrefix) -> tuple[int, tuple[int, ...]]:
            window = padded_length(min(self._window(group), length), self._windows)
            return -window, group.members

        waiting = sorted(groups, key=order)
        rows: list[list[SharedPrefix]] = []
        while waiting:
            row: list[SharedPrefix] = []
            room, place = length, 0
            while place < min(len(waiting), _LOOK_AHEAD):
                if (size := self._size(waiting[place])) <= room:
                    row.append(waiting.pop(place))
                    room -= size
                else:
                    place += 1
            splits = [self._split(group, room) for group in waiting[:_LOOK_AHEAD]]
            if splits:
                # The room that stays empty, and the prefix that is run again.
                wasted = [room - self._size(part) + part.length for part, _ in splits]
                best = int(np.argmin(wasted))
                if splits[best][0].members:
                    row.append(splits[best][0])
                    waiting[best] = splits[best][1]
            rows.append(row)
        return rows

    def _split(self, group: SharedPrefix, room: int) -> tuple[SharedPrefix, SharedPrefix]:
        """Returns the group with as many of its members as fit, and the group of the others."""
        room -= group.length
        fitting: list[int] = []
        rest: list[int] = []
        for member in group.members:
            length = self._own_length(group, member)
            (fitting if length <= room else rest).append(member)
            room -= length if length <= room else 0
        return group._replace(members=tuple(fitting)), group._replace(members=tuple(rest))

    def _shape(self, row: Sequence[SharedPrefix]) -> tuple[int, ...]:
        length = padded_length(sum(map(self._size, row)), self._lengths)
        window = padded_length(min(max(map(self._window, row)), length), self._windows)
        num_targets = sum(len(self.targets[member]) for group in row for member in group.members)
        shares = [math.ceil(length * share) for share in _TARGET_SHARES]
        return length, min(window, length), padded_length(num_targets, shares)

    # --- rows to batches, as an engine runs them ---

    def batches(self, shapes: Sequence[Shape], processes: int, multiple_of: int) -> Batches:
        """Yields (shape, places in `shapes`) of batches, a row for every device of a process.

        A batch has the longest window and the most targets of its rows; one with too few rows
        repeats the first.
        """
        del processes
        order = sorted(range(len(shapes)), key=lambda place: (shapes[place], -place), reverse=True)
        while order:
            length = shapes[order[0]][0]
            batch = [place for place in order[:multiple_of] if shapes[place][0] == length]
            order = order[len(batch) :]
            shape = tuple(map(max, *(shapes[place] for place in batch), shapes[batch[0]]))
            yield shape, batch + batch[:1] * (multiple_of - len(batch))

    def arrays(self, shape: tuple[int, ...], rows: Sequence[int | None]) -> list[np.ndarray]:
        """Returns the batch of `rows`; None is a row of padding.

        Returns:
          int32 arrays: tokens, then positions, groups and texts [B, N] and begins [B, C, 3] of
          `group_windows.Groups`; the places of the tokens before the targets, and the targets,
          [B, T].
        """
        length, _, num_targets = shape
        of_tokens = np.zeros((4, len(rows), length), np.int32)
        begins = np.zeros((len(rows), length // BLOCK, 3), np.int32)
        begins[:] = np.arange(0, length, BLOCK)[:, None]
        of_targets = np.zeros((2, len(rows), num_targets), np.int32)
        for slot, row in enumerate(rows):
            if row is not None:
                of_row = of_tokens[:, slot], begins[slot], of_targets[:, slot]
                self._fill(self.rows[row], *of_row)
        return [*of_tokens, begins, *of_targets]

    def _fill(
        self,
        row: Sequence[SharedPrefix],
        of_tokens: np.ndarray,
        of_blocks: np.ndarray,
        of_targets: np.ndarray,
    ) -> None:
        """Writes a row's tokens, where its blocks' texts begin, and its targets."""
        tokens, positions, groups, texts = of_tokens
        places, targets = of_targets
        begins = np.repeat(np.arange(len(tokens))[:, None], 3, axis=1)  # of the text of every token
        at = text = at_target = 0
        for number, (length, members) in enumerate(row, 1):
            prefix, begin = slice(at, at + length), at
            tokens[prefix] = self.prompts[members[0]][:length]
            positions[prefix], groups[prefix] = range(length), number
            begins[prefix] = begin, begin + length, begin
            at += length
            for member in members:
                text += 1  # numbers go on from group to group
                prompt, target = self.prompts[member], self.targets[member]
                own = [*prompt[length:], *target[:-1]]
                of_text = slice(at, at + len(own))
                tokens[of_text], positions[of_text] = own, range(length, length + len(own))
                groups[of_text], texts[of_text] = number, text
                begins[of_text] = begin, begin + length, at
                last = at + len(prompt) - length - 1
                of_target = slice(at_target, at_target + len(target))
                places[of_target], targets[of_target] = range(last, last + len(target)), target
                at, at_target = of_text.stop, of_target.stop
        of_blocks[:] = begins[::BLOCK]

    def means(self, row: int, log_p_T: np.ndarray) -> Iterator[tuple[int, float]]:
        """Yields (member, mean over its target) from a row's token log-likelihoods."""
        at = 0
        for group in self.rows[row]:
            for member in group.members:
                end = at + len(self.targets[member])
                yield member, float(log_p_T[at:end].mean(dtype=np.float64))
                at = end

    def padded_tokens(self, arrays: Sequence[np.ndarray], rows: Sequence[int | None]) -> int:
        """Returns how many places of a batch hold a prompt's token or nothing."""
        real = {row for row in rows if row is not None}
        members = [m for row in real for g in self.rows[row] for m in g.members]
        return arrays[0].size - sum(len(self.targets[member]) - 1 for member in members)
