// The page: table and filters above, the comparison of the chosen runs below. The report (run_report.js) runs the same code without a kernel.

const pageOf = model => ({model, records: model.get("records"), chosen: [...model.get("chosen")], sort: {column: COLUMNS.length - 1, up: false},
  log: false, pair: [], open: new Set(), urls: new Map(), requested: new Map(), passes: () => true, setStatus: () => {}});

function render({model, el}) {
  const page = pageOf(model), report = !!model.get("report"), below = make("div", {class: "below"});
  page.redraw = keep => {
    const runs = page.chosen.map(name => page.records.find(r => r.name === name)).filter(Boolean);
    const legend = make("div", {class: "legend"}, runs.map((r, i) => make("span", {}, swatch(i), r.name)));
    const hint = make("p", {}, page.records.length ? "Choose runs above to compare them." : "");
    const parts = runs.length ? [legend, ...[curves, differences, classes, pictures, messages].map(part => part(page, runs))] : [hint];
    below.replaceChildren(...parts.flat(3).filter(Boolean));
    if (typeof keep === "string") below.querySelector(`[data-keep="${keep}"]`)?.focus();
  };
  page.save = () => { model.set("chosen", [...page.chosen]); model.save_changes(); };
  page.set = names => { page.chosen = names; page.save(); page.fill(); page.redraw(); };
  page.choose = (name, on) => {
    page.chosen = page.chosen.filter(n => n !== name).concat(on ? [name] : []);
    page.save(); page.redraw();
    page.setStatus(`${page.chosen.length} chosen`);
  };
  const tools = report ? [] : filters(page), [status, list] = table(page);
  const root = make("div", {class: "sam-nb-runs"}, make("div", {class: "bar"}, tools, status), list, below);
  const recordsChanged = () => {
    page.records = model.get("records");
    page.chosen = page.chosen.filter(name => page.records.some(r => r.name === name));
    page.urls.forEach(address => URL.revokeObjectURL(address)); page.urls.clear();
    page.answered?.(); page.offerChoices?.(); page.fill(); page.redraw();
  };
  const chosenChanged = () => {
    const now = model.get("chosen");
    if (now.join("\n") !== page.chosen.join("\n")) { page.chosen = [...now]; page.fill(); page.redraw(); }
  };
  const receive = (message, buffers) => {
    if (message.about === "picture") showPicture(page, message, buffers);
    if (message.about === "refreshed") { page.answered?.(); page.fill(); page.setStatus(message.said); }
  };
  model.on("change:records", recordsChanged); model.on("change:chosen", chosenChanged); model.on("msg:custom", receive);
  page.offerChoices?.(); page.fill(); page.redraw();
  el.append(root);
  const hide = model.get("fallback") ? document.head.appendChild(make("style", {}, `[data-samnb="${model.get("fallback")}"] {display: none}`)) : null;
  return () => {
    hide?.remove();
    model.off("change:records", recordsChanged); model.off("change:chosen", chosenChanged); model.off("msg:custom", receive);
  };
}
