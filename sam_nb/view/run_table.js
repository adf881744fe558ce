// The table of runs and its filters.

// Elements; text is always added as text nodes, so that nothing in a run is taken as HTML.
const fillElement = (element, attributes, children) => {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "checked" || name === "value" || name === "disabled" || name === "open") element[name] = value;
    else if (value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(2).filter(child => child != null && child !== false));
  return element;
};
const make = (tag, attributes, ...children) => fillElement(document.createElement(tag), attributes, children);
const makeSvg = (tag, attributes, ...children) => fillElement(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

// A colour and a dash pattern for the i-th chosen run.
const lineStyle = i => ({stroke: COLOURS[i % COLOURS.length], "stroke-dasharray": ["none", "7 3", "2 3"][Math.floor(i / COLOURS.length) % 3]});
const swatch = i => makeSvg("svg", {class: "swatch", width: 22, height: 8, "aria-hidden": "true"},
  makeSvg("line", {x1: 0, x2: 22, y1: 4, y2: 4, "stroke-width": 3, ...lineStyle(i)}));
const formatNumber = v => v == null ? "" : Number.isInteger(v) ? String(v)
  : Math.abs(v) >= 1e5 || Math.abs(v) < 1e-3 ? v.toExponential(2) : String(+v.toPrecision(4));
const formatDuration = s => s == null ? "" : s < 120 ? `${Math.round(s)} s` : s < 7200 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`;
const formatValue = v => v === null ? "none" : typeof v === "object" ? JSON.stringify(v) : String(v);

// The table: a click on a header sorts, a click on a row (or its box) chooses; the tooltip has messages and problems.

const MARKS = {finished: "✓", running: "▶", stopped: "■", failed: "✕", dead: "†", damaged: "!"};
const COLUMNS = [
  {title: "run", of: r => r.name}, {title: "method", of: r => r.method}, {title: "dataset", of: r => r.dataset},
  {title: "state", of: r => r.state, text: r => `${MARKS[r.state] ?? ""} ${r.state}`},
  {title: "score", of: r => r.score?.value, text: r => r.score ? `${r.score.name} ${r.score.value.toFixed(2)}` : "", number: true},
  {title: "published", of: r => r.published?.value, text: r => r.published ? r.published.value.toFixed(2) : "", number: true},
  {title: "last loss", of: r => r.loss, text: r => formatNumber(r.loss), number: true},
  {title: "steps", of: r => r.steps, text: r => formatNumber(r.steps), number: true},
  {title: "time", of: r => r.seconds, text: r => formatDuration(r.seconds), number: true},
  {title: "started", of: r => r.order, text: r => r.started},
];
const sorted = (records, {column, up}) => {
  const of = COLUMNS[column].of, empty = v => v == null || v === "";
  return [...records].sort((a, b) => {
    const [x, y] = [of(a), of(b)];
    if (empty(x) || empty(y)) return empty(x) - empty(y);
    return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1);
  });
};
const searchText = r => [r.name, r.method, r.dataset, r.state, r.message,
  ...Object.entries(r.recipe).map(([k, v]) => `${k}=${formatValue(v)}`)].join(" ").toLowerCase();

function row(page, r) {
  const box = make("input", {type: "checkbox", checked: page.chosen.includes(r.name), "aria-label": `compare ${r.name}`});
  const line = make("tr", {title: [r.message, ...r.problems].filter(Boolean).join("\n") || null}, make("td", {}, box),
    COLUMNS.map(c => make("td", {class: c.number ? "number" : c.title === "state" ? r.state : null}, c.text ? c.text(r) : c.of(r))));
  const choose = on => { line.classList.toggle("chosen", on); page.choose(r.name, on); };
  line.classList.toggle("chosen", box.checked);
  box.addEventListener("change", () => choose(box.checked));
  line.addEventListener("click", event => { if (event.target !== box) { box.checked = !box.checked; choose(box.checked); } });
  return line;
}

function table(page) {
  const body = make("tbody"), status = make("span", {class: "note", "aria-live": "polite"});
  const heads = COLUMNS.map((c, i) => make("th", {scope: "col", class: c.number ? "number" : null}, make("button", {type: "button", onclick: () => {
    page.sort = {column: i, up: page.sort.column === i ? !page.sort.up : !c.number && c.title !== "started"};
    page.fill();
  }}, c.title)));
  page.fill = () => {
    const {column, up} = page.sort, seen = sorted(page.records.filter(page.passes), page.sort);
    body.replaceChildren(...seen.map(r => row(page, r)));
    heads.forEach((h, i) => {
      h.setAttribute("aria-sort", i !== column ? "none" : up ? "ascending" : "descending");
      h.firstChild.textContent = COLUMNS[i].title + (i !== column ? "" : up ? " ▲" : " ▼");
    });
    status.textContent = page.records.length ? `${seen.length} of ${page.records.length} runs, ${page.chosen.length} chosen` : "there are no runs yet";
  };
  page.setStatus = text => { status.textContent = text; };
  const head = make("thead", {}, make("tr", {}, make("th", {"aria-label": "chosen"}), heads));
  return [status, make("div", {class: "scroll"}, make("table", {}, head, body))];
}

// The filters. The text is searched in names, messages and parameters, so `lr=0.001 fmb` works.

function filters(page) {
  const wanted = {text: "", method: "", dataset: "", state: ""};
  const text = make("input", {type: "search", placeholder: "name, or lr=0.001", "aria-label": "filter by text",
    oninput: () => { wanted.text = text.value.toLowerCase(); page.fill(); }});
  const choosers = ["method", "dataset", "state"].map(field => {
    const chooser = make("select", {"aria-label": `only this ${field}`, onchange: () => { wanted[field] = chooser.value; page.fill(); }});
    return [field, chooser];
  });
  page.offerChoices = () => {
    for (const [field, chooser] of choosers) {
      const there = [...new Set(page.records.map(r => r[field]).filter(Boolean))].sort();
      chooser.replaceChildren(make("option", {value: ""}, `every ${field}`), ...there.map(v => make("option", {value: v}, v)));
      chooser.value = wanted[field] = there.includes(wanted[field]) ? wanted[field] : "";
    }
  };
  page.passes = r => wanted.text.split(/\s+/).every(part => searchText(r).includes(part))
    && ["method", "dataset", "state"].every(field => !wanted[field] || r[field] === wanted[field]);
  const none = make("button", {type: "button", onclick: () => page.set([])}, "choose none");
  const refresh = make("button", {type: "button", title: "read the run folders again", onclick: () => {
    refresh.disabled = true; page.setStatus("reading the runs again");
    page.waiting = setTimeout(() => { refresh.disabled = false; page.setStatus("no answer: is the kernel running?"); }, 15000);
    page.model.send({ask: "refresh"});
  }}, "refresh");
  page.answered = () => { clearTimeout(page.waiting); refresh.disabled = false; };
  return [text, ...choosers.map(([, chooser]) => chooser), none, refresh];
}
