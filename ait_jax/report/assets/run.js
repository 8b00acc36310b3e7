// The page of one run: text first, then the charts, the task map before what lies below it.

async function startRun() {
  startTheme();
  const head = await readBlock("head");
  unpackPlotly().catch(() => {}); // told where the charts are drawn
  drawSummary(byId("summary"), head);
  drawSetup(bodyOf("setup"), head);
  drawCost(bodyOf("cost"), head);
  const run = makeRun(head, await readBlock("tasks"));
  const view = startView(run);
  // The filters' counts want the round that is shown first.
  if (view.state.place !== null) await loadRound(run, view.state.place);
  startDetail(run, view);
  const curves = drawLearningCurves(bodyOf("learning"), head);
  const map = drawTaskMap(bodyOf("map"), run, view);
  drawRunTables(bodyOf("tables"), run, view);
  drawTraining(bodyOf("training"), head);
  performance.mark("text");
  await Promise.all([curves, map]);
  performance.mark("map");
  document.documentElement.dataset.ready = "true";
}

orSayWhyNot(startRun());
