// A run's tasks and scored rounds as typed arrays.

const REGIONS = ["other", "ambiguous", "easy", "difficult"];
// Drawn in this order, the grey ones below.
const REGION_ORDER = [0, 3, 2, 1];
const TYPES = ["GEN", "CLS", "unlabelled"]; // unlabelled: no pool was at hand
const SPLITS = ["train", "pool", "dev", "test"];

function makeRun(head, tasks) {
  const names = tasks.name || [];
  const run = {
    head,
    names,
    size: names.length,
    instructions: tasks.instruction || [],
    category: Int32Array.from(tasks.category || []),
    type: Uint8Array.from(tasks.is_cls || [], (is) => is ?? 2),
    split: Uint8Array.from(tasks.split || []),
    categories: head.task_categories || [],
    // Places in head.rounds of the rounds with a map: the slider's stops.
    scored: head.rounds.map((_, i) => i).filter((i) => head.rounds[i].num_tasks > 0),
    chunkOf: new Map(),
    rounds: new Map(),
    searchTexts: null,
  };
  head.details.forEach((chunk, i) => {
    for (const task of chunk) run.chunkOf.set(task, i);
  });
  return run;
}

function categoryName(run, task) {
  return run.categories[run.category[task]] ?? "";
}

function typeName(run, task) {
  return TYPES[run.type[task]];
}

// Name, category and the instruction's beginning, in lower case, once for all searches.
function searchText(run, task) {
  if (!run.searchTexts) run.searchTexts = new Array(run.size);
  if (run.searchTexts[task] === undefined) {
    run.searchTexts[task] = [run.names[task], categoryName(run, task), run.instructions[task]]
      .join("\n")
      .toLowerCase();
  }
  return run.searchTexts[task];
}

function numbers(values, length) {
  const array = new Float64Array(length).fill(NaN);
  if (values) for (let i = 0; i < length; i += 1) if (values[i] !== null) array[i] = values[i];
  return array;
}

// The round at place i of head.rounds, all of whose arrays are parallel to `task`.
async function loadRound(run, i) {
  if (run.rounds.has(i)) return run.rounds.get(i);
  const head = run.head.rounds[i];
  const long = head.num_tasks ? await readBlock(`round-${i}`) : { task: [] };
  const task = Int32Array.from(long.task);
  const round = {
    place: i,
    number: head.round,
    head,
    task,
    uncertainty: numbers(long.prompt_uncertainty, task.length),
    probability: numbers(long.prediction_probability, task.length),
    region: Uint8Array.from(long.region || new Uint8Array(task.length)),
    measures: Object.fromEntries(
      head.measure_names.map((name) => [name, numbers(long.measures[name], task.length)]),
    ),
    rowOf: new Int32Array(run.size).fill(-1),
    selected: new Uint8Array(run.size),
    trained: new Uint8Array(run.size),
  };
  task.forEach((number, row) => {
    round.rowOf[number] = row;
  });
  for (const number of head.selected || []) round.selected[number] = 1;
  for (const number of head.trained || []) round.trained[number] = 1;
  run.rounds.set(i, round);
  return round;
}

// The scored round before this one, or null.
async function roundBefore(run, i) {
  const earlier = run.scored.filter((place) => place < i);
  return earlier.length ? loadRound(run, earlier.at(-1)) : null;
}

function roundName(run, i) {
  return `round ${run.head.rounds[i].round}`;
}

// Where a task stood in every scored round: [{place, uncertainty, probability, region, selected}].
async function historyOf(run, task) {
  const rounds = await Promise.all(run.scored.map((i) => loadRound(run, i)));
  return rounds
    .filter((round) => round.rowOf[task] >= 0)
    .map((round) => {
      const row = round.rowOf[task];
      return {
        place: round.place,
        uncertainty: round.uncertainty[row],
        probability: round.probability[row],
        region: round.region[row],
        selected: Boolean(round.selected[task]),
      };
    });
}

// One line on how the tasks scored in both rounds moved.
function movementLine(run, round, before) {
  if (!before) return "The first scored round: tasks have not moved yet.";
  const changes = [];
  let regions = 0,
    up = 0;
  round.task.forEach((task, row) => {
    const old = before.rowOf[task];
    if (old < 0) return;
    const change = round.uncertainty[row] - before.uncertainty[old];
    if (!Number.isFinite(change)) return;
    changes.push(Math.abs(change));
    up += change > 0;
    regions += round.region[row] !== before.region[old];
  });
  if (!changes.length) return `No task was scored in round ${before.number} too.`;
  return (
    `Since round ${before.number}: ${grouped(up)} of ${grouped(changes.length)} tasks ` +
    "became more uncertain, " +
    `the median moved by ${short(median(changes))}, ${grouped(regions)} changed region.`
  );
}
