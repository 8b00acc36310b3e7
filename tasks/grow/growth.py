"""One growth of a pool: sources -> datasets -> proposals -> tasks, everything counted.

The same growth again adds nothing: a task's name depends on its proposal alone, and an endpoint's
answers come from its cache. So the same command continues an interrupted growth.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ait_jax.tasks.grow import dictionaries, templates
from ait_jax.tasks.grow.conversation import MAX_TOKENS, STYLES, conversation
from ait_jax.tasks.grow.dataset import Dataset, Field, Tally
from ait_jax.tasks.grow.grown_pool import GrownPool, make_task, task_name
from ait_jax.tasks.grow.instances import (
    AUTHORS,
    FILTERS,
    OWN,
    LabelSpace,
    instances,
    label_space,
)
from ait_jax.tasks.grow.proposal import Proposal, ProposalFilter, proposal_from_json
from ait_jax.tasks.grow.screening import Screening
from ait_jax.tasks.grow.sources import DatasetLines, source
from ait_jax.tasks.grow.steering import Steering

from ait_jax.endpoint.endpoint import Endpoint
from ait_jax.errors import UserError, nearest
from ait_jax.runtime import reporter

# With max_tasks: datasets that an endpoint is asked about before its answers are looked at.
_ASKED_AT_ONCE = 16
_PRESENT = "already in the pool"

_Proposed = Iterator[tuple[Proposal, Dataset]]


@dataclass(frozen=True)
class Growth:
    """What a pool is to be grown from, and how.

    Attributes:
      pool: folder of the pool, new or grown before.
      sources: see `sources.source`.
      rows: JSONL files of datasets; rows are taken from them by the dataset's name.
      endpoint: asked for instructions; None uses templates.
      styles: of the questions to the endpoint.
      screening: rules for datasets.
      filters: rules for tasks and instances: "own", or "authors": those of Dynosaur's code to the
        letter.
      max_datasets: continue with only the first N that pass; None for all.
      max_tasks: stop once N tasks were added; None for all.
      steer: a scored round (MODEL_DIR/round_NNN) of a run on this pool: datasets like the tasks on
        which the model is most prompt-sensitive come first.
      steer_only: leave out datasets that are no more sensitive than the average task.
    """

    pool: Any
    sources: Sequence[str]
    rows: Sequence[str] = ()
    endpoint: Endpoint | None = None
    styles: Sequence[str] = STYLES
    screening: Screening = field(default_factory=Screening)
    filters: str = OWN
    max_datasets: int | None = None
    max_tasks: int | None = None
    steer: Any = None
    steer_only: bool = False

    def __post_init__(self) -> None:
        if self.filters not in FILTERS:
            raise UserError(
                f"--filters={self.filters} is not one of {', '.join(FILTERS)}."
                + nearest(str(self.filters), FILTERS)
            )

    def to_json(self) -> dict[str, Any]:
        """Returns what the report says; nothing in it is secret."""
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
            "filters": self.filters,
            "max_datasets": self.max_datasets,
            "max_tasks": self.max_tasks,
            "steer": str(self.steer) if self.steer else None,
            "steer_only": self.steer_only,
        }


def grow(growth: Growth) -> Tally:
    """Grows a pool; returns the counts, which are also in the pool's report.json.

    Raises:
      UserError: a source cannot be read, the pool cannot be read or written, another growth of
        the same pool is at work, or the endpoint refuses everything.
    """
    if not growth.sources:
        raise UserError("nothing to grow from: give --from (see `ait-jax grow --help`).")
    folder = GrownPool(growth.pool)
    steering = None
    if growth.steer:
        steering = Steering(growth.steer, folder.entries, growth.steer_only)
    proposer = _Proposer(growth, steering)
    tally = proposer.tally
    filter_ = ProposalFilter(per_answer=growth.filters == AUTHORS)
    with folder.locked():
        for proposal, dataset in proposer.proposals():
            _add(proposal, dataset, folder, filter_, growth.filters, tally)
            added = sum(n for reason, n in tally.counts("pool").items() if reason != _PRESENT)
            if growth.max_tasks is not None and added >= growth.max_tasks:
                reporter.say(f"stopped: --max_tasks={growth.max_tasks} tasks were added.")
                break
        folder.commit(
            {"growth": growth.to_json(), "counts": tally.groups}
            | ({"steering": steering.to_json()} if steering else {})
        )
    if steering:
        reporter.say(steering.describe())
    reporter.say(tally.table() or "nothing was found.")
    if growth.endpoint:
        reporter.say(growth.endpoint.summary())
        if growth.endpoint.stopped:
            reporter.say(f"stopped: {growth.endpoint.stopped} The same command continues.")
    return tally


class _Proposer:
    """From sources to proposals."""

    def __init__(self, growth: Growth, steering: Steering | None) -> None:
        self._growth = growth
        self._steering = steering
        self._order: list[tuple[Dataset, DatasetLines | None]] | None = None
        self._sources = [source(given) for given in growth.sources]
        self._rows = [DatasetLines(path) for path in growth.rows]
        self.tally = Tally()
        # Instructions of one dataset mostly follow each other.
        self._row_dataset = functools.lru_cache(maxsize=4)(self._find_rows)

    def proposals(self) -> _Proposed:
        """Yields proposals with their datasets, released instructions first."""
        for proposal, dataset in self._released():
            yield proposal, self._with_rows(dataset)
        if self._growth.endpoint is not None:
            yield from self._generated(self._growth.endpoint)
            return
        for dataset in self._datasets(self.tally):
            proposed = templates.propose(dataset)
            if not proposed:
                self.tally.add("templates", "no template fits", dataset.name)
            yield from ((proposal, dataset) for proposal in proposed)

    def _released(self) -> Iterable[tuple[Proposal, Dataset]]:
        """Returns the sources' own instructions, steered like the datasets they are of."""
        found = (
            (proposal, Dataset(proposal.dataset, Path(given.given).name))
            for given in self._sources
            for proposal in given.proposals(self.tally)
        )
        if self._steering is None:
            return found
        return self._steering.sort(found, lambda pair: _described_by(*pair), self.tally)

    def _datasets(self, tally: Tally) -> Iterator[Dataset]:
        """Yields the datasets that pass the screening, with their rows."""
        if self._steering is None:
            passed = (dataset for dataset, _ in self._screened(tally))
        else:
            passed = self._in_order(self._steering, tally)
        return itertools.islice(passed, self._growth.max_datasets)

    def _in_order(self, steering: Steering, tally: Tally) -> Iterator[Dataset]:
        """Yields the same, the most prompt-sensitive first. Rows are read again, not kept."""
        order = self._order
        if order is None:
            light = (
                (dataclasses.replace(dataset, rows=()), lines if dataset.rows else None)
                for dataset, lines in self._screened(tally)
            )
            order = self._order = steering.sort(light, lambda pair: pair[0], tally)
        for dataset, lines in order:
            found = lines.get(dataset.name) if lines else None
            yield self._with_rows(found or dataset)

    def _screened(self, tally: Tally) -> Iterator[tuple[Dataset, DatasetLines | None]]:
        seen = set()
        for given in self._sources:
            for dataset in map(self._with_rows, given.datasets(tally)):
                reason = self._growth.screening.rejection(dataset)
                if not reason and dataset.name in seen:
                    reason = "duplicate: name of an earlier dataset"
                tally.add("datasets", reason or "kept", dataset.name)
                if not reason:
                    seen.add(dataset.name)
                    yield dataset, given.lines

    def _with_rows(self, dataset: Dataset) -> Dataset:
        found = self._row_dataset(dataset.name)
        return dataset.with_rows(found) if found else dataset

    def _find_rows(self, name: str) -> Dataset | None:
        return next((found for lines in self._rows if (found := lines.get(name))), None)

    def _generated(self, endpoint: Endpoint) -> _Proposed:
        datasets = self._datasets(self.tally)
        if self._growth.max_tasks is None:
            answers = self._ask(endpoint, datasets)
            # Read a second time rather than kept: all rows of all datasets may not fit in memory.
            yield from self._read(answers, self._datasets(Tally()), endpoint.model)
            return
        # A few at a time: what is no longer needed is not asked, and not paid for.
        while not endpoint.stopped and (few := list(itertools.islice(datasets, _ASKED_AT_ONCE))):
            yield from self._read(self._ask(endpoint, few), few, endpoint.model)

    def _ask(self, endpoint: Endpoint, datasets: Iterable[Dataset]) -> dict[tuple[str, str], str]:
        """Returns (dataset, style) -> the answer, for all questions that were answered."""
        asked: dict[tuple[str, str], Sequence[Mapping[str, str]]] = {}
        for dataset in datasets:
            for style in self._growth.styles:
                messages = conversation(dataset, style)
                if isinstance(messages, str):
                    self.tally.add(f"questions, {style}", f"left out: {messages}", dataset.name)
                else:
                    asked[dataset.name, style] = messages
        replies = endpoint.ask(
            list(asked.values()),
            max_tokens=MAX_TOKENS,
            description="designing tasks",
        )
        answers = {}
        for (name, style), reply in zip(asked, replies, strict=True):
            if reply.text is None:
                reason = f"not answered: {reply.error}"[:100]
            else:
                reason = "answered"
                answers[name, style] = reply.text
            self.tally.add(f"questions, {style}", reason, name)
        return answers

    def _read(
        self, answers: Mapping[tuple[str, str], str], datasets: Iterable[Dataset], model: str
    ) -> _Proposed:
        for dataset in datasets:
            for style in self._growth.styles:
                text = answers.get((dataset.name, style))
                if text is not None:
                    for proposal in self._parsed(text, dataset.name, style, model):
                        yield proposal, dataset

    def _parsed(self, text: str, dataset: str, style: str, model: str) -> Iterator[Proposal]:
        found, reasons = dictionaries.parse(text)
        for reason in reasons:
            self.tally.add("answers", f"unreadable: {reason}", f"{dataset}: {text}")
        for data in found:
            proposal = proposal_from_json(data, dataset, generator=style, model=model)
            if isinstance(proposal, str):
                self.tally.add("answers", f"unreadable: {proposal}", f"{dataset}: {data}")
            else:
                self.tally.add("answers", "tasks read", dataset)
                yield proposal


def _described_by(proposal: Proposal, dataset: Dataset) -> Dataset:
    """Returns what a released instruction says about its dataset: the instruction, its columns."""
    columns = dict.fromkeys((*proposal.input_fields, *proposal.output_field))
    fields = tuple(Field(name, "text") for name in columns)
    return dataclasses.replace(dataset, description=proposal.instruction, fields=fields)


def _add(
    proposal: Proposal,
    dataset: Dataset,
    folder: GrownPool,
    filter_: ProposalFilter,
    filters: str,
    tally: Tally,
) -> None:
    """Filters a proposal, applies the label-space rule, makes instances, adds the task."""
    where = f"{dataset.name}: {proposal.instruction}"
    reason = filter_.rejection(proposal, dataset)
    space = LabelSpace(reason) if reason else label_space(proposal, dataset, filters)
    if space.unknown:
        tally.add("labels", space.unknown)
    if space.rejection:
        tally.add("proposals", space.rejection, where)
        return
    made = instances(proposal, dataset.rows, functools.partial(tally.add, "rows"), filters)
    if dataset.rows and not made and proposal.generator != "released":
        tally.add("proposals", "instances: none could be made of the rows", where)
        return
    tally.add("proposals", "kept", where)
    name = task_name(proposal)
    if folder.has(name, with_instances=bool(made)):
        tally.add("pool", _PRESENT)
        return
    known = folder.has(name, with_instances=False)
    folder.add(make_task(proposal, dataset, made, space.suffix), space.is_cls)
    added = "added, with instances" if made else "added, without instances"
    tally.add("pool", "given the instances that it lacked" if known else added, where)
