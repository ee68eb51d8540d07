// Bokeh calls this when a widget changes, when the page is ready, and when the pointer moves over the panel.
// It reads the widgets and `runs` (relora_study/report/explore.py), and fills lines, bands and the tables below.
const chosenOf = group => group.labels.filter((_, number) => group.active.includes(number));
const escaped = text => String(text).replace(/[&<>"]/g, letter => `&#${letter.charCodeAt(0)};`);
const finite = values => values.filter(Number.isFinite);
const mean = values => values.reduce((sum, value) => sum + value, 0) / values.length;

function draw() {
  const [inSizes, inMethods, inSeeds] = [sizes, methods, seeds].map(group => new Set(chosenOf(group)));
  const chosen = runs.filter(run => inSizes.has(run.size) && inMethods.has(run.method) && inSeeds.has(run.seed));
  const curves = chosen.map(curveOf).filter(curve => curve !== null);
  const shown = averaged.active ? grouped(curves) : curves;
  for (const curve of shown) curve.y = smoothed(curve.y);
  const banded = shown.filter(curve => curve.low);
  lines.data = columns(shown, curve => Array.from(curve.x), curve => Array.from(curve.y));
  bands.data = columns(banded, curve => [...curve.x, ...Array.from(curve.x).reverse()],
    curve => [...smoothed(curve.low), ...smoothed(curve.high).reverse()]);
  linear.visible = !logarithmic.active;
  log.visible = logarithmic.active;
  const titles = Object.fromEntries([...measure.options, ...place.options]);
  for (const panel of [linear, log]) {
    panel.left[0].axis_label = titles[measure.value] + (minus.active ? ", minus full rank" : "");
    panel.below[0].axis_label = titles[place.value];
  }
  settings.text = differing(chosen);
  readAt(Infinity);
}

function columns(curves, xs, ys) {
  return {
    xs: curves.map(xs), ys: curves.map(ys), color: curves.map(curve => curve.run.color),
    dash: curves.map(curve => curve.run.dash), name: curves.map(curve => curve.name),
  };
}

// A run's measure by step, less that of full rank of equal size and seed where asked; null where there is none.
function curveOf(run) {
  const series = seriesOf(run);
  if (!series) return null;
  let y = Array.from(series.value);
  if (minus.active) {
    const full = runs.find(other => other.reference && other.size === run.size && other.seed === run.seed);
    const theirs = full && seriesOf(full);
    if (!theirs || full === run) return null;
    const byStep = new Map(Array.from(theirs.step, (step, number) => [step, theirs.value[number]]));
    y = y.map((value, number) => value - byStep.get(series.step[number]));
  }
  const step = Array.from(series.step);
  return {run, step, y, x: step.map(at => placeOf(run, at)), name: `${run.size}, ${run.method}, seed ${run.seed}`};
}

function seriesOf(run) {
  if (measure.value in run.read) return run.read[measure.value];
  return measure.value in run.log ? {step: run.log.step, value: run.log[measure.value]} : null;
}

function placeOf(run, step) {
  if (place.value === "step") return step;
  if (place.value === "tokens") return step * run.tokens;
  const next = run.log.step.findIndex(logged => logged >= step);
  return step === 0 ? 0 : run.log.minutes[next === -1 ? run.log.step.length - 1 : next];
}

// The mean of the finite values around each; the window is in points of the log.
function smoothed(y) {
  const half = measure.value in (runs[0]?.read ?? {}) ? 0 : (smoothing.value - 1) / 2;
  return y.map((_, number) => {
    const near = finite(y.slice(Math.max(0, number - half), number + half + 1));
    return near.length ? mean(near) : NaN;
  });
}

// One curve for each size and method: the mean over seeds, between the lowest and the highest of them.
function grouped(curves) {
  const groups = new Map();
  for (const curve of curves) {
    const name = `${curve.run.size}, ${curve.run.method}`;
    groups.set(name, [...(groups.get(name) ?? []), curve]);
  }
  return [...groups].map(([name, all]) => {
    const at = number => finite(all.map(curve => curve.y[number]));
    const over = pick => all[0].y.map((_, number) => (at(number).length ? pick(at(number)) : NaN));
    const [first] = all;
    return {...first, name, y: over(mean), low: over(v => Math.min(...v)), high: over(v => Math.max(...v))};
  });
}

// The value of every line where the pointer is; at the right end where it is not over the panel.
const MOST_ROWS = 24;
function readAt(x) {
  const read = lines.data.name.map((name, number) => {
    const xs = lines.data.xs[number];
    let nearest = 0;
    for (let i = 1; i < xs.length; i++) if (Math.abs(xs[i] - x) <= Math.abs(xs[nearest] - x) || x === Infinity) nearest = i;
    return {name, color: lines.data.color[number], x: xs[nearest], y: lines.data.ys[number][nearest]};
  }).sort((one, other) => other.y - one.y);
  const rows = read.slice(0, MOST_ROWS).map(({name, color, x, y}) =>
    `<tr><td style="color:${color}">&#9632; ${escaped(name)}</td><td style="text-align:right">${y.toPrecision(4)}</td>` +
    `<td style="text-align:right">at ${x.toLocaleString("en", {maximumFractionDigits: 2})}</td></tr>`);
  const more = read.length > MOST_ROWS ? `<tr><td>and ${read.length - MOST_ROWS} more</td></tr>` : "";
  values.text = `<table cellspacing="6">${rows.join("")}${more}</table>`;
}

// A table of the settings in which the chosen sizes and methods differ.
function differing(chosen) {
  const groups = new Map(chosen.map(run => [`${run.size}, ${run.method}`, run.settings]));
  const names = [...groups.keys()].slice(0, MOST_ROWS);
  const keys = [...new Set(names.flatMap(name => Object.keys(groups.get(name))))].filter(
    key => new Set(names.map(name => groups.get(name)[key])).size > 1);
  if (!keys.length) return "";
  const cells = (tag, texts) => texts.map(text => `<${tag} style="text-align:left">${escaped(text ?? "–")}</${tag}>`).join("");
  const rows = keys.map(key => `<tr>${cells("th", [key])}${cells("td", names.map(name => groups.get(name)[key]))}</tr>`);
  return `<b>Settings in which the chosen runs differ</b>
    <table cellspacing="6"><tr>${cells("th", ["", ...names])}</tr>${rows.join("")}</table>`;
}

if (cb_obj.event_name === "mousemove") readAt(cb_obj.x);
else draw();
