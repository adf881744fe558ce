// Curves of the chosen runs as SVG charts.

// Ticks of a linear or logarithmic axis.
function ticks(low, high, log, most = 5) {
  if (log) {
    const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high)), found = [];
    const steps = last - first > most ? [1] : last - first > 1 ? [1, 3] : [1, 2, 3, 5, 7];
    for (let e = first; e <= last; e += Math.max(1, Math.ceil((last - first) / most))) for (const s of steps) found.push(s * 10 ** e);
    const seen = found.filter(v => v >= low * 0.999 && v <= high * 1.001);
    return seen.length > 2 ? seen : ticks(low, high, false, most);
  }
  const rough = (high - low) / most, size = 10 ** Math.floor(Math.log10(rough)), step = [1, 2, 5, 10].find(s => s * size >= rough) * size;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step);
  return found;
}

// Values -> pixels between `from` and `to`.
function scale(values, log, from, to, tight = false) {
  let low = Math.min(...values), high = Math.max(...values);
  if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  else if (!tight) [low, high] = log ? [low / 1.1, high * 1.1] : [low - (high - low) * 0.04, high + (high - low) * 0.04];
  const f = log ? Math.log : v => v;
  const at = v => from + (f(v) - f(low)) / (f(high) - f(low)) * (to - from);
  return {at, low, high, ticks: ticks(low, high, log)};
}

const WIDE = 400, HIGH = 200, LEFT = 50, RIGHT = 20, TOP = 8, BOTTOM = 24;

function path(xs, ys, x, y, usable) {
  let text = "", pen = "M";
  xs.forEach((s, i) => {
    if (!usable(ys[i])) { pen = "M"; return; }
    text += `${pen}${x.at(s).toFixed(1)} ${y.at(ys[i]).toFixed(1)}`; pen = "L";
  });
  return text;
}

// The area between least and greatest value, where steps were averaged for drawing.
function band({step, low, high}, x, y, usable) {
  const there = step.map((s, i) => i).filter(i => usable(low[i]) && usable(high[i]));
  const side = (values, order) => order.map(i => `${x.at(step[i]).toFixed(1)} ${y.at(values[i]).toFixed(1)}`).join("L");
  return there.length > 1 ? `M${side(high, there)}L${side(low, [...there].reverse())}Z` : "";
}

// One chart, a line a run; y values of zero and below cannot be drawn on a log scale.
function chart(name, lines, log) {
  const usable = v => v != null && (!log || v > 0);
  const values = lines.flatMap(({curve: c}) => [...c.value, ...(c.low ?? []), ...(c.high ?? [])]).filter(usable);
  const caption = make("figcaption", {}, name);
  if (!values.length) return make("figure", {}, caption, make("div", {class: "readout"}, log ? "nothing above zero to draw" : "nothing to draw"));
  const x = scale(lines.flatMap(l => l.curve.step), false, LEFT, WIDE - RIGHT, true), y = scale(values, log, HIGH - BOTTOM, TOP);
  const svg = makeSvg("svg", {class: "chart", viewBox: `0 0 ${WIDE} ${HIGH}`, tabindex: 0, role: "img",
    "aria-label": `${name} of ${lines.map(l => l.run).join(", ")}; arrow keys read values`});
  for (const v of y.ticks) svg.append(makeSvg("line", {class: "grid", x1: LEFT, x2: WIDE - RIGHT, y1: y.at(v), y2: y.at(v)}),
    makeSvg("text", {x: LEFT - 5, y: y.at(v) + 4, "text-anchor": "end"}, formatNumber(+v.toPrecision(6))));
  for (const v of x.ticks) svg.append(makeSvg("text", {x: x.at(v), y: HIGH - 9, "text-anchor": "middle"}, formatNumber(v)));
  for (const {curve, place} of lines) {
    if (curve.low) svg.append(makeSvg("path", {d: band(curve, x, y, usable), fill: lineStyle(place).stroke, opacity: 0.16}));
  }
  for (const {curve, place, run} of lines) {
    const d = path(curve.step, curve.value, x, y, usable);
    svg.append(makeSvg("path", {class: "curve", "data-run": run, d, fill: "none", "stroke-width": 1.7, ...lineStyle(place)}));
    if (curve.step.length <= 25) curve.step.forEach((s, i) => usable(curve.value[i]) && svg.append(
      makeSvg("circle", {cx: x.at(s), cy: y.at(curve.value[i]), r: 2.4, fill: lineStyle(place).stroke})));
  }
  return make("figure", {}, caption, svg, reader(svg, lines, x, y, usable));
}

// The values at a step, by the mouse or the arrow keys.
function reader(svg, lines, x, y, usable) {
  const out = make("div", {class: "readout", "aria-live": "polite"}), marks = makeSvg("g", {});
  const steps = [...new Set(lines.flatMap(l => l.curve.step))].sort((a, b) => a - b);
  let now = steps.length - 1;
  svg.append(marks);
  const nearest = (all, s) => all.reduce((best, v, i) => Math.abs(v - s) < Math.abs(all[best] - s) ? i : best, 0);
  const show = () => {
    const step = steps[now], at = x.at(step);
    marks.replaceChildren(makeSvg("line", {class: "cursor", x1: at, x2: at, y1: TOP, y2: HIGH - BOTTOM}));
    const reach = (steps.at(-1) - steps[0]) / 25 || 1;
    const readings = lines.map(({curve, place}) => {
      const i = nearest(curve.step, step), v = curve.value[i];
      if (Math.abs(curve.step[i] - step) > reach || v == null) return null;
      if (usable(v)) marks.append(makeSvg("circle", {cx: x.at(curve.step[i]), cy: y.at(v), r: 3.5, fill: lineStyle(place).stroke}));
      return make("span", {}, swatch(place), formatNumber(v));
    });
    out.replaceChildren(make("span", {}, `step ${Math.round(step)}`), ...readings.filter(Boolean));
  };
  const hide = () => { marks.replaceChildren(); out.replaceChildren(); };
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect(), at = (event.clientX - box.left) / box.width * WIDE;
    now = nearest(steps.map(x.at), at); show();
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("focus", show);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", event => {
    const move = {ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity}[event.key];
    if (move == null) return;
    event.preventDefault(); event.stopPropagation();
    now = Math.max(0, Math.min(steps.length - 1, now + move)); show();
  });
  return out;
}

// The loss and the monitored score first, all other curves in a block that opens.
function curves(page, runs) {
  const names = [...new Set(runs.flatMap(r => Object.keys(r.curves)))];
  if (!names.length) return [];
  const main = names.filter(n => n === "loss" || runs.some(r => r.score && n === `val_${r.score.name}`));
  const first = main.length ? main : names.slice(0, 2), rest = names.filter(n => !first.includes(n));
  const of = name => chart(name,
    runs.flatMap((r, i) => !r.curves[name] ? [] : [{run: r.name, curve: r.curves[name], place: i}]), page.log);
  const log = make("input", {type: "checkbox", checked: page.log, "data-keep": "log",
    onchange: () => { page.log = log.checked; page.redraw("log"); }});
  const more = make("details", {open: page.open.has("curves"), ontoggle: () => page.open[more.open ? "add" : "delete"]("curves")},
    make("summary", {}, `${rest.length} more: ${rest.slice(0, 6).join(", ")}${rest.length > 6 ? ", …" : ""}`),
    make("div", {class: "charts"}, rest.map(of)));
  const bands = runs.some(r => Object.values(r.curves).some(c => c.low));
  return [make("h3", {}, "Curves"),
    make("div", {class: "bar"}, make("label", {}, log, " log scale"),
      bands && make("span", {class: "note"}, "line: mean of neighbouring steps; band: least and greatest")),
    make("div", {class: "charts"}, first.map(of)), rest.length ? more : null];
}
