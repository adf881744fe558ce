// What the chosen runs differ in: parameters, scores, versions, classes, pictures, messages.

function differing(runs, field) {
  const names = [...new Set(runs.flatMap(r => Object.keys(r[field])))];
  const sound = runs.filter(r => Object.keys(r[field]).length); // a damaged run has no values to compare
  const value = (r, name) => name in r[field] ? formatValue(r[field][name]) : "–";
  const older = field === "recipe" ? formatValue(null) : "–"; // a run of an older version does not know every parameter
  const differs = name => new Set(sound.map(r => name in r[field] ? value(r, name) : older)).size > 1;
  return names.filter(differs).map(name => [name, runs.map(r => value(r, name))]);
}
const rounded = v => /^-?\d+\.\d{4,}$/.test(v) ? String(+(+v).toPrecision(5)) : v;

function differences(page, runs) {
  if (runs.length < 2) return [];
  const groups = [["parameters", differing(runs, "recipe")], ["scores", differing(runs, "scores")], ["made with", differing(runs, "made_with")]];
  const some = groups.filter(([, rows]) => rows.length);
  if (!groups[0][1].length) some.unshift(["parameters", [["all", runs.map(() => "the same")]]]);
  const head = make("tr", {}, make("th", {}), runs.map((r, i) => make("th", {scope: "col"}, swatch(i), r.name)));
  return [make("h3", {}, "What differs"), make("div", {class: "scroll", tabindex: 0}, make("table", {class: "differences"}, make("thead", {}, head),
    some.map(([title, rows]) => make("tbody", {}, make("tr", {}, make("th", {scope: "rowgroup", colspan: runs.length + 1}, title)),
      rows.map(([name, values]) => make("tr", {}, make("th", {scope: "row"}, name), values.map(v => make("td", {}, rounded(v)))))))))];
}

// Two runs, class by class, the largest gain first.
function classes(page, runs) {
  const known = runs.filter(r => r.classes);
  if (known.length < 2) return [];
  const choose = k => {
    if (!known.some(r => r.name === page.pair[k])) page.pair[k] = known.find(r => !page.pair.includes(r.name))?.name ?? known[k].name;
    const chooser = make("select", {"aria-label": k ? "the other run" : "one run", "data-keep": `pair${k}`,
      onchange: () => { page.pair[k] = chooser.value; page.redraw(`pair${k}`); }}, known.map(r => make("option", {value: r.name}, r.name)));
    chooser.value = page.pair[k];
    return chooser;
  };
  const choosers = [choose(0), choose(1)], [a, b] = page.pair.map(name => known.find(r => r.name === name));
  const both = Object.keys(a.classes.values).filter(c => a.classes.values[c] != null && b.classes.values[c] != null);
  const rows = both.map(c => [c, a.classes.values[c], b.classes.values[c]]).sort((p, q) => (q[2] - q[1]) - (p[2] - p[1]));
  const most = Math.max(...rows.map(([, p, q]) => Math.abs(q - p)), 1e-9);
  const bar = d => make("div", {class: "difference"}, make("i", {
    style: `background: ${COLOURS[d < 0 ? 1 : 0]}; width: ${Math.abs(d) / most * 50}%; ${d < 0 ? "right" : "left"}: 50%`}));
  const difference = (p, q) => `${q >= p ? "+" : "−"}${Math.abs(q - p).toFixed(1)}`;
  const titles = make("tr", {}, ["class", a.name, b.name, "difference", ""].map(t => make("th", {scope: "col"}, t)));
  const lines = rows.map(([c, p, q]) => make("tr", {}, make("th", {scope: "row"}, c),
    [p.toFixed(1), q.toFixed(1), difference(p, q)].map(v => make("td", {class: "number"}, v)), make("td", {}, bar(q - p))));
  const alone = Object.keys({...a.classes.values, ...b.classes.values}).filter(c => !both.includes(c));
  const source = r => `${r.classes.measure} (${r.classes.from})`;
  return [make("h3", {}, "Class by class"), make("div", {class: "bar"}, choosers[0], "against", choosers[1],
      make("span", {class: "note"}, source(a) === source(b) ? source(a) : `${source(a)} against ${source(b)}`)),
    rows.length ? make("table", {class: "classes"}, make("thead", {}, titles), make("tbody", {}, lines))
      : make("p", {}, "They have no class in common."),
    alone.length ? make("p", {}, `Only in one of them: ${alone.join(", ")}`) : null];
}

// Pictures of the same name side by side, requested from Python when they are shown.
function picture(page, run, file, image) {
  const key = `${run}/${file}`, given = page.model.get("pictures")?.[key];
  const shown = (image.firstChild ?? image.appendChild(make("img", {alt: `${file} of ${run}`})));
  const use = address => { shown.src = address; };
  if (given) use(given);
  else if (page.urls.has(key)) use(page.urls.get(key));
  else {
    const pending = page.requested.get(key) ?? [];
    page.requested.set(key, [...pending, image]);
    if (!pending.length) page.model.send({ask: "picture", run, file});
  }
}

function showPicture(page, message, buffers) {
  const key = `${message.run}/${message.file}`, waiting = page.requested.get(key) ?? [];
  page.requested.delete(key);
  if (message.error) { waiting.forEach(w => w.replaceChildren(make("span", {class: "none"}, message.error))); return; }
  if (!page.urls.has(key)) page.urls.set(key, URL.createObjectURL(new Blob([buffers[0]], {type: "image/png"})));
  waiting.forEach(w => { if (w.firstChild) w.firstChild.src = page.urls.get(key); });
}

function pictures(page, runs) {
  const files = [...new Set(runs.flatMap(r => r.figures))];
  const some = runs.filter(r => r.figures.length);
  const owners = file => runs.filter(r => r.figures.includes(file)).length;
  files.sort((a, b) => owners(b) - owners(a) || (a < b ? -1 : 1));
  if (!files.length) return [];
  if (!page.picturesShown) { page.picturesShown = true; files.slice(0, 2).forEach(f => page.open.add(`figure ${f}`)); }
  return [make("h3", {}, "Pictures"), files.map(file => {
    const side = make("div", {class: "side"});
    const one = r => {
      const image = make("div", {});
      if (r.figures.includes(file)) picture(page, r.name, file, image); else image.append(make("span", {class: "none"}, "no such picture"));
      return make("figure", {}, make("figcaption", {}, swatch(runs.indexOf(r)), r.name), image);
    };
    const fill = () => { if (!side.childElementCount) side.append(...some.map(one)); };
    const block = make("details", {open: page.open.has(`figure ${file}`), ontoggle: () => {
      page.open[block.open ? "add" : "delete"](`figure ${file}`);
      if (block.open) fill();
    }}, make("summary", {}, `${file} (${owners(file)} of ${some.length})`), side);
    if (block.open) fill();
    return block;
  })];
}

// Error messages and problems of the chosen runs.
function messages(page, runs) {
  const rows = runs.map((r, i) => [r, i]).filter(([r]) => r.message || r.problems.length);
  if (!rows.length) return [];
  return [make("h3", {}, "Messages"), rows.map(([r, i]) => make("div", {class: "message"}, make("div", {}, swatch(i), `${r.name}: ${r.state}`),
    make("pre", {}, [r.message, ...r.problems].filter(Boolean).join("\n"))))];
}
