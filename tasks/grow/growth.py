"""One growth of a pool: sources -> datasets -> proposals -> tasks, everything counted.

The same growth again adds nothing: a task's name depends on its proposal alone, and answers of an
endpoint come from its cache. So whatever interrupted it, the same command continues.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ait_jax.tasks.grow import dictionaries, label_space, templates
from ait_jax.tasks.grow.authors_files import DatasetLines
from ait_jax.tasks.grow.conversation import MAX_TOKENS, STYLES, conversation
from ait_jax.tasks.grow.dataset import Dataset, Field
from ait_jax.tasks.grow.grown_pool import GrownPool, make_task, task_name
from ait_jax.tasks.grow.instances import instances
from ait_jax.tasks.grow.label_space import LabelSpace
from ait_jax.tasks.grow.proposal import Proposal, ProposalFilter, proposal_from_json
from ait_jax.tasks.grow.screening import Screening
from ait_jax.tasks.grow.sources import Source, source
from ait_jax.tasks.grow.steered import Steered
from ait_jax.tasks.grow.tally import Tally

from ait_jax.endpoint.endpoint import Endpoint
from ait_jax.errors import UserError

# Fewer rows cannot tell whether there are more than ten labels, or which.
_ROWS_FOR_LABELS = label_space.MAX_LABELS + 1
# With max_tasks: datasets that an endpoint is asked about before what it answered is looked at.
_ASKED_AT_ONCE = 16
_TOLD = "Answers must be one of"


@dataclass(frozen=True)
class Growth:
    """What a pool is to be grown from, and how.

    Attributes:
      pool: folder of the pool, new or one that was grown before.
      sources: see `sources.source`.
      rows: JSONL files of datasets that rows are taken from, by name.
      endpoint: asked for instructions; None uses templates.
      styles: of the questions to the endpoint.
      screening: rules for datasets.
      max_datasets: goes on with so many of those that pass; None for all.
      max_tasks: ends when so many tasks were added; None for all.
      steer: a scored round (MODEL_DIR/round_NNN) of a run on this pool: datasets on whose like the model
        is most prompt-sensitive come first.
      steer_only: leave out those that are no more sensitive than the average.
    """

    pool: Any
    sources: Sequence[str]
    rows: Sequence[str] = ()
    endpoint: Endpoint | None = None
    styles: Sequence[str] = STYLES
    screening: Screening = field(default_factory=Screening)
    max_datasets: int | None = None
    max_tasks: int | None = None
    steer: Any = None
    steer_only: bool = False

    def to_json(self) -> dict[str, Any]:
        """Returns what stands in the report; nothing in it is secret."""
        endpoint = self.endpoint
        return {
            "sources": list(map(str, self.sources)),
            "rows": list(map(str, self.rows)),
            "generator": "endpoint" if endpoint else templates.GENERATOR,
            "base_url": endpoint.base_url if endpoint else None,
            "model": endpoint.model if endpoint else None,
            "styles": list(self.styles) if endpoint else [],
            "languages": self.screening.languages,
            "unlicensed": self.screening.unlicensed,
            "max_datasets": self.max_datasets,
            "max_tasks": self.max_tasks,
            "steer": str(self.steer) if self.steer else None,
            "steer_only": self.steer_only,
        }


def grow(growth: Growth, say: Callable[[str], None] = print) -> Tally:
    """Grows a pool; returns the counts, which also stand in the pool's report.json.

    Raises:
      UserError: a source that is none, a pool that cannot be read or written, another growth of
        the same pool at work, an endpoint that refuses everything.
    """
    if not growth.sources:
        raise UserError("nothing to grow from: give --from (see `ait-jax grow --help`).")
    sources = [source(given) for given in growth.sources]
    rows = [DatasetLines(path) for path in growth.rows]
    folder = GrownPool(growth.pool)
    tally = Tally()
    steered = Steered(growth.steer, folder, growth.steer_only) if growth.steer else None
    work = _Work(growth, sources, rows, tally, steered)
    with folder.locked():
        for proposal, dataset in work.proposals():
            _add(proposal, dataset, folder, work.filter, tally)
            if growth.max_tasks is not None and _num_added(tally) >= growth.max_tasks:
                say(f"stopped: --max_tasks={growth.max_tasks} tasks were added.")
                break
        folder.commit(
            {"growth": growth.to_json(), "counts": tally.to_json()}
            | ({"steering": steered.to_json()} if steered else {})
        )
    if steered:
        say(steered.describe())
    say(tally.table() or "nothing was found.")
    if growth.endpoint:
        say(growth.endpoint.summary())
        if growth.endpoint.stopped:
            say(f"stopped: {growth.endpoint.stopped} The same command continues.")
    return tally


class _Work:
    """The stages before tasks are made."""

    def __init__(
        self,
        growth: Growth,
        sources: Sequence[Source],
        rows: Sequence[DatasetLines],
        tally: Tally,
        steered: Steered | None = None,
    ) -> None:
        self._growth = growth
        self._steered = steered
        self._order: list[tuple[Dataset, DatasetLines | None]] | None = None
        self._sources = sources
        self._rows = rows
        self._tally = tally
        self.filter = ProposalFilter()
        # Instructions of one dataset mostly follow each other.
        self._row_dataset = functools.lru_cache(maxsize=4)(self._find_rows)

    def proposals(self) -> Iterator[tuple[Proposal, Dataset]]:
        """Yields what generators propose, with the dataset; released instructions come first."""
        for proposal, dataset in self._released():
            yield proposal, self._with_rows(dataset)
        if self._growth.endpoint is None:
            for dataset in self._datasets(self._tally):
                proposed = templates.propose(dataset)
                if not proposed:
                    self._tally.add("templates", "no template fits", dataset.name)
                yield from ((proposal, dataset) for proposal in proposed)
        else:
            yield from self._generated(self._growth.endpoint)

    def _released(self) -> Iterator[tuple[Proposal, Dataset]]:
        """Yields the sources' own instructions, steered like the datasets they are of."""
        found = (
            (proposal, Dataset(proposal.dataset, Path(given.given).name))
            for given in self._sources
            for proposal in given.proposals(self._tally)
        )
        if self._steered is None:
            return found
        return iter(self._steered.sort(found, lambda pair: _described_by(*pair), self._tally))

    def _datasets(self, tally: Tally) -> Iterator[Dataset]:
        """Yields the datasets that pass the screening, with their rows."""
        if self._steered is None:
            passed = (dataset for dataset, _ in self._screened(tally))
        else:
            passed = self._in_order(tally)
        return itertools.islice(passed, self._growth.max_datasets)

    def _in_order(self, tally: Tally) -> Iterator[Dataset]:
        """Yields the same, the most prompt-sensitive first. Rows are read again, not kept."""
        if self._order is None:
            light = (
                (dataclasses.replace(dataset, rows=()), given.lines if dataset.rows else None)
                for dataset, given in self._screened(tally)
            )
            self._order = self._steered.sort(light, lambda pair: pair[0], tally)
        for dataset, lines in self._order:
            found = lines.get(dataset.name) if lines else None
            yield self._with_rows(found or dataset)

    def _screened(self, tally: Tally) -> Iterator[tuple[Dataset, Source]]:
        seen = set()
        for given in self._sources:
            for dataset in given.datasets(tally):
                dataset = self._with_rows(dataset)
                reason = self._growth.screening.rejection(dataset)
                if not reason and dataset.name in seen:
                    reason = "duplicate: name of an earlier dataset"
                tally.add("datasets", reason or "kept", dataset.name)
                if not reason:
                    seen.add(dataset.name)
                    yield dataset, given

    def _with_rows(self, dataset: Dataset) -> Dataset:
        found = self._row_dataset(dataset.name)
        return dataset.with_rows(found) if found else dataset

    def _find_rows(self, name: str) -> Dataset | None:
        return next((found for lines in self._rows if (found := lines.get(name))), None)

    def _generated(self, endpoint: Endpoint) -> Iterator[tuple[Proposal, Dataset]]:
        if self._growth.max_tasks is None:
            replies = self._ask(endpoint, self._datasets(self._tally))
            # Read a second time rather than kept: all rows of all datasets may not fit in memory.
            yield from self._read(replies, self._datasets(Tally()), endpoint)
            return
        datasets = self._datasets(self._tally)
        # A few at a time: what is not needed any more is not asked, and not paid for.
        while not endpoint.stopped and (few := list(itertools.islice(datasets, _ASKED_AT_ONCE))):
            yield from self._read(self._ask(endpoint, few), few, endpoint)

    def _read(
        self,
        replies: Mapping[tuple[str, str], str],
        datasets: Iterable[Dataset],
        endpoint: Endpoint,
    ) -> Iterator[tuple[Proposal, Dataset]]:
        for dataset in datasets:
            for style in self._growth.styles:
                text = replies.get((dataset.name, style))
                if text is not None:
                    for proposal in self._parsed(text, dataset, style, endpoint.model):
                        yield proposal, dataset

    def _ask(self, endpoint: Endpoint, datasets: Iterable[Dataset]) -> dict[tuple[str, str], str]:
        """Returns (dataset, style) -> the answer, for all that were answered."""
        asked: dict[tuple[str, str], Sequence[Mapping[str, str]]] = {}
        for dataset in datasets:
            for style in self._growth.styles:
                messages = conversation(dataset, style)
                if isinstance(messages, str):
                    self._tally.add(f"questions, {style}", f"left out: {messages}", dataset.name)
                else:
                    asked[dataset.name, style] = messages
        replies = endpoint.ask(
            list(asked.values()),
            temperature=0.0,
            max_tokens=MAX_TOKENS,
            description="designing tasks",
        )
        answered = {}
        for (name, style), reply in zip(asked, replies, strict=True):
            stage = f"questions, {style}"
            if reply.text is None:
                self._tally.add(stage, f"not answered: {reply.error}"[:100], name)
                continue
            self._tally.add(stage, "answered", name)
            answered[name, style] = reply.text
        return answered

    def _parsed(self, text: str, dataset: Dataset, style: str, model: str) -> Iterator[Proposal]:
        found, reasons = dictionaries.parse(text)
        for reason in reasons:
            self._tally.add("answers", f"unreadable: {reason}", f"{dataset.name}: {text}")
        for data in found:
            proposal = proposal_from_json(data, dataset.name, generator=style, model=model)
            if isinstance(proposal, str):
                self._tally.add("answers", f"unreadable: {proposal}", f"{dataset.name}: {data}")
            else:
                self._tally.add("answers", "tasks read", dataset.name)
                yield proposal


_THERE = "already in the pool"


def _num_added(tally: Tally) -> int:
    return sum(count for reason, count in tally.counts("pool").items() if reason != _THERE)


def _described_by(proposal: Proposal, dataset: Dataset) -> Dataset:
    """Returns what is known of a released instruction's dataset: the instruction and its columns."""
    columns = dict.fromkeys((*proposal.input_fields, *proposal.output_field))
    fields = tuple(Field(name, "text") for name in columns)
    return dataclasses.replace(dataset, description=proposal.instruction, fields=fields)


def _add(
    proposal: Proposal, dataset: Dataset, folder: GrownPool, filter_: ProposalFilter, tally: Tally
) -> None:
    """Filters a proposal, applies the label-space rule, makes instances, adds the task."""
    where = f"{dataset.name}: {proposal.instruction}"
    reason = filter_.rejection(proposal, dataset)
    space = LabelSpace() if reason else _label_space(proposal, dataset, tally)
    reason = reason or space.rejection
    if reason:
        tally.add("proposals", reason, where)
        return

    def count(row: str) -> None:
        tally.add("rows", row)

    made = instances(proposal, dataset.rows, count)
    released = proposal.generator == "released"
    if dataset.rows and not made and not released:
        tally.add("proposals", "instances: none could be made of the rows", where)
        return
    tally.add("proposals", "kept", where)
    name = task_name(proposal)
    if folder.has(name, with_instances=bool(made)):
        tally.add("pool", _THERE)
        return
    known = folder.has(name, with_instances=False)
    folder.add(make_task(proposal, dataset, made, space.suffix), space.is_cls)
    added = "added, with instances" if made else "added, without instances"
    tally.add("pool", "given the instances that it lacked" if known else added, where)


def _label_space(proposal: Proposal, dataset: Dataset, tally: Tally) -> LabelSpace:
    if proposal.generator == "released":  # the authors applied the rule before the release
        return LabelSpace(is_cls=_TOLD in proposal.instruction)
    output = proposal.output_field[0]
    if not dataset.rows:
        tally.add("labels", "balance unknown: no rows")
        return label_space.from_field(dataset.field(output))
    values = [row[output] for row in dataset.rows if row.get(output) is not None]
    if not values:
        return LabelSpace("output: empty in all rows")
    if len(values) < _ROWS_FOR_LABELS:
        tally.add("labels", f"balance unknown: fewer than {_ROWS_FOR_LABELS} rows")
        return LabelSpace()
    return label_space.from_rows(values)
