// One sample of a dataset: a MaskView in which a click on a row shows that mask alone, another click all of them.
function showSample(model, el) {
  const view = new MaskView(model, el, {
    loaded(view) {
      for (const layer of view.layers) {
        layer.hidden = new Set(model.get("hidden")[layer.name]);
        view.repaint(layer);
      }
      view.table?.fill();
      view.stage.placed = false;
      view.stage.resize();
    },
  });
  el.classList.add("sam-sample");
  el.addEventListener("click", e => {
    const line = e.target.closest("[data-mask]"), layer = view.layers[view.state.layer];
    if (!line || e.target.matches("input")) return;
    const k = Number(line.dataset.mask), others = [...layer.table.name.keys()].filter(n => n !== k);
    const alone = !layer.hidden.has(k) && others.every(n => layer.hidden.has(n));
    layer.hiddenClasses.clear();
    layer.hidden = new Set(alone ? model.get("hidden")[layer.name] : others);
    view.repaint(layer);
    view.table.fill();
    view.summarise();
  });
}
