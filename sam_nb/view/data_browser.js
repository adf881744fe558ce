// Filters, thumbnails and the line above an open sample. The index of all samples is in the page; Python is asked for thumbnails only.

// Orders and filters.

const sum = list => list.reduce((a, b) => a + b, 0);
const ORDERS = {
  name: (a, b) => a.name.localeCompare(b.name, undefined, {numeric: true}),
  objects: (a, b) => b.areas.length - a.areas.length,
  area: (a, b) => sum(b.areas) - sum(a.areas),
  "largest object": (a, b) => Math.max(0, ...b.areas) - Math.max(0, ...a.areas),
  "smallest object": (a, b) => Math.min(1e12, ...a.areas) - Math.min(1e12, ...b.areas),
};

// A sample stays if its name or an expression has the text, one mask has a wanted class and size, and its problems are the wanted ones.
function matches(row, wanted) {
  const text = wanted.text.trim().toLowerCase();
  if (text && ![row.name, ...row.expressions].some(t => t.toLowerCase().includes(text))) return false;
  if (wanted.split && row.split !== wanted.split) return false;
  const error = row.problems.some(p => p[1] === "error");
  if (wanted.problem === "none" && row.problems.length) return false;
  if (wanted.problem === "error" && !error) return false;
  if (wanted.problem === "any" && !row.problems.length) return false;
  if (wanted.problem.startsWith("=") && !row.problems.some(p => p[0] === wanted.problem.slice(1))) return false;
  if (!wanted.classes.size && wanted.least === null && wanted.most === null) return true;
  return row.areas.some((area, n) => (!wanted.classes.size || wanted.classes.has(row.classes[n]))
    && area >= (wanted.least ?? 0) && area <= (wanted.most ?? Infinity));
}

// Numbers of the rows that pass, in order.
function filtered(rows, wanted) {
  const order = ORDERS[wanted.order], found = rows.map((_, k) => k).filter(k => matches(rows[k], wanted));
  return found.sort((a, b) => (order(rows[a], rows[b]) || a - b) * (wanted.back ? -1 : 1));
}

// Controls: text, split, problems, area, order, and a button for each class.

const make = (tag, about = {}, ...inside) => {
  const made = Object.assign(document.createElement(tag), about);
  for (const [name, value] of Object.entries(about.aria ?? {})) made.setAttribute("aria-" + name, value);
  made.append(...inside);
  return made;
};
const labelled = (text, field) => make("label", {className: "sam-field"}, text + " ", field);
const dropdown = (text, options, act) => { // options: [[value, text], ...]
  const list = make("select", {aria: {label: text}}, ...options.map(([value, text]) => make("option", {value}, text)));
  list.onchange = () => act(list.value);
  return list;
};
const countEach = values => Object.entries(values.reduce((all, v) => ({...all, [v]: (all[v] ?? 0) + 1}), {}));

function tools({rows, classes, colours, splits, words}, wanted, act) {
  const field = (kind, hint, change) => {
    const made = make("input", {type: kind, placeholder: hint, min: 0, aria: {label: hint}});
    made.oninput = () => { change(made.value); act(); };
    return made;
  };
  const number = text => text === "" ? null : Number(text);
  const bar = make("div", {className: "sam-tools"}, field("search", words ? "name or words" : "name", v => { wanted.text = v; }));
  const list = (text, options, change) => labelled(text, dropdown(text, options, v => { change(v); act(); }));
  if (splits.length > 1) bar.append(list("split", [["", "all"], ...splits.map(s => [s, s])], v => { wanted.split = v; }));
  const kinds = countEach(rows.flatMap(r => [...new Set(r.problems.map(p => p[0]))]));
  const each = kinds.map(([kind, n]) => ["=" + kind, `${kind} (${n})`]);
  const options = [["", "with and without"], ["none", "without"], ["any", "with"], ["error", "with errors"], ...each];
  if (kinds.length) bar.append(list("problems", options, v => { wanted.problem = v; }));
  bar.append(make("span", {className: "sam-field"}, "area ", field("number", "from", v => { wanted.least = number(v); }), " to ",
    field("number", "to", v => { wanted.most = number(v); }), " pixels"));
  const reverse = make("button", {className: "sam-button", textContent: "\u2193", title: "reverse the order", aria: {label: "reverse the order"}});
  reverse.onclick = () => { wanted.back = !wanted.back; reverse.textContent = wanted.back ? "\u2191" : "\u2193"; act(); };
  const orders = list("order", Object.keys(ORDERS).map(o => [o, o]), v => { wanted.order = v; });
  bar.append(make("span", {className: "sam-field"}, orders, " ", reverse));
  return make("div", {}, bar, chips(rows, classes, colours, wanted, act));
}

function chips(rows, classes, colours, wanted, act) {
  const images = classes.map((_, c) => rows.filter(r => r.classes.includes(c)).length);
  const box = make("div", {className: "sam-chips", role: "group", aria: {label: "classes"}});
  classes.forEach((name, c) => {
    if (!images[c]) return;
    const swatch = make("i", {className: "sam-swatch"});
    const chip = make("button", {className: "sam-chip", aria: {pressed: "false"}}, swatch, `${name} `, make("small", {}, `${images[c]}`));
    swatch.style.background = `rgb(${colours[c]})`;
    chip.title = `${images[c]} samples show ${name}`;
    chip.onclick = () => {
      if (!wanted.classes.delete(c)) wanted.classes.add(c);
      chip.setAttribute("aria-pressed", wanted.classes.has(c));
      act();
    };
    box.append(chip);
  });
  return box;
}

// The grid: a page of tiles. Arrow keys move, Enter opens, Page Up and Down turn pages.

function tile(row, {nouns, splits}, open) {
  const failed = row.size[0] ? null : row.problems[0], face = make("div", {className: "sam-face"});
  const about = `${row.areas.length} ${nouns[row.areas.length === 1 ? 0 : 1]}${splits.length > 1 ? `, ${row.split}` : ""}`;
  const mark = row.problems.length ? "\u26a0 " : "", place = row.size[0] ? `${row.split}, ${row.size[1]} x ${row.size[0]} pixels` : row.split;
  const made = make("button", {className: "sam-tile", tabIndex: -1, aria: {label: `${row.name}, ${failed ? failed[2] : about}`}}, face,
    make("div", {className: "sam-name"}, row.name), make("small", {}, failed ? row.split : mark + about));
  made.title = [row.name, place, ...row.problems.map(p => `${p[0]}: ${p[2]}`)].join("\n");
  if (failed) face.append(make("span", {className: "sam-failed"}, make("b", {}, mark + failed[0]), failed[2]));
  else face.append(make("canvas", {width: 160, height: 120}));
  made.onclick = open;
  return made;
}

// Thumbnails: each is requested once, when its tile is first shown, and drawn when it arrives.
function pictures(model, rows) {
  const drawn = new Map(), waiting = new Map();
  const paint = (canvas, bitmap) => {
    canvas.width = bitmap.width; canvas.height = bitmap.height;
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    canvas.dataset.drawn = "yes";
  };
  model.on("msg:custom", async ({thumbnails = [], failed = {}}, buffers = []) => {
    for (const [n, k] of thumbnails.entries()) {
      drawn.set(k, await createImageBitmap(new Blob([buffers[n]], {type: "image/jpeg"})));
      if (waiting.get(k)) paint(waiting.get(k), drawn.get(k));
    }
    for (const [k, text] of Object.entries(failed)) waiting.get(Number(k))?.replaceWith(make("span", {className: "sam-failed"}, text));
  });
  return tiles => { // [[number of the row, tile], ...]
    const missing = [];
    for (const [k, made] of tiles) {
      const canvas = made.querySelector("canvas");
      if (!canvas) continue;
      if (drawn.has(k)) { paint(canvas, drawn.get(k)); continue; }
      if (!waiting.has(k)) missing.push(k);
      waiting.set(k, canvas);
    }
    if (missing.length) model.send({thumbnails: missing});
  };
}

function move(event, grid, turn) {
  const tiles = [...grid.querySelectorAll(".sam-tile")], here = tiles.indexOf(document.activeElement);
  if (here < 0) return;
  const columns = Math.max(1, tiles.filter(t => t.offsetTop === tiles[0].offsetTop).length);
  const steps = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -here, End: tiles.length - 1 - here};
  const pages = {PageUp: -1, PageDown: 1}[event.key], step = steps[event.key];
  if (!pages && step === undefined) return;
  event.preventDefault();
  if (pages) { turn(pages); grid.querySelector(".sam-tile")?.focus(); return; }
  const next = tiles[here + step];
  if (!next) return;
  tiles[here].tabIndex = -1; next.tabIndex = 0; next.focus();
}

function overview({model, index, open}) {
  const wanted = {text: "", split: "", problem: "", classes: new Set(), least: null, most: null, order: "name", back: false};
  const count = make("div", {className: "sam-count", role: "status"}), pager = make("div", {className: "sam-bar"});
  const grid = make("div", {className: "sam-grid", role: "group", aria: {label: "samples"}});
  const rows = index.rows, size = model.get("page"), load = pictures(model, rows), state = {found: [], grid};
  let at = 0, timer = 0;
  const show = () => {
    const last = Math.max(1, Math.ceil(state.found.length / size));
    const page = state.found.slice(at * size, (at + 1) * size).map(k => [k, tile(rows[k], index, () => open(k))]);
    const none = make("p", {}, rows.length ? "No sample matches: remove a filter." : "The dataset is empty.");
    grid.replaceChildren(...(page.length ? page.map(p => p[1]) : [none]));
    if (page.length) page[0][1].tabIndex = 0;
    const [back, on] = [button("previous", () => turn(at - 1), at === 0), button("next", () => turn(at + 1), at + 1 >= last)];
    pager.replaceChildren(back, `page ${at + 1} of ${last}`, on);
    pager.hidden = last === 1;
    count.textContent = `${state.found.length} of ${rows.length} shown; ${index.note}`;
    load(page);
  };
  const turn = to => { at = Math.max(0, Math.min(to, Math.ceil(state.found.length / size) - 1)); show(); };
  const filter = () => {
    state.found = filtered(rows, wanted); at = 0; show();
    clearTimeout(timer);
    timer = setTimeout(() => { model.set("found", state.found); model.save_changes(); }, 200);
  };
  grid.onkeydown = e => move(e, grid, n => turn(at + n));
  state.element = make("div", {}, tools(index, wanted, filter), count, grid, pager);
  filter();
  return state;
}

// One sample open: a bar to go back, on, and to all samples (Escape and the arrows do it too).

const button = (text, act, off = false) => Object.assign(make("button", {className: "sam-button", textContent: text, disabled: off}), {onclick: act});

function render({model, el}) {
  const index = model.get("index"), rows = index.rows, bar = make("div", {className: "sam-bar"});
  const open = k => { model.set("opened", k); model.save_changes(); };
  const all = overview({model, index, open});
  const failed = ([kind, , fact]) => make("span", {className: "sam-failed"}, `\u26a0 ${kind}: ${fact}`);
  const look = () => {
    const k = model.get("opened"), place = all.found.indexOf(k);
    all.element.hidden = k >= 0; bar.hidden = k < 0;
    if (k < 0) return all.grid.querySelector("[tabindex='0']")?.focus({preventScroll: true});
    const to = (text, other) => button(text, () => open(other), other === undefined), {name, split, size} = rows[k];
    const back = button("all samples", () => open(-1)), about = size[0] ? `${split}, ${size[1]} x ${size[0]} pixels` : split;
    bar.replaceChildren(back, to("previous", all.found[place - 1]), to("next", all.found[place + 1]), make("b", {}, name),
      `${about}; ${place + 1} of ${all.found.length}`, ...rows[k].problems.map(failed));
    back.focus({preventScroll: true});
  };
  bar.onkeydown = e => ({Escape: () => open(-1), ArrowLeft: () => bar.children[1].click(), ArrowRight: () => bar.children[2].click()})[e.key]?.();
  el.addEventListener("focusin", e => { e.target.dataset.lmSuppressShortcuts = "true"; });  // "x" must not cut the cell
  el.classList.add("sam-data");
  el.append(all.element, bar, make("style", {}, `[data-samnb="${index.sheet}"] {display: none}`));
  model.on("change:opened", look);
  bar.hidden = true;
  if (model.get("opened") >= 0) look();
}
export default {render};
