// Thresholds on the candidates of everything mode, by the rules of Candidates.select.

// IoU of two boxes x0, y0, x1, y1; x1 and y1 are exclusive, the boxes are compared as inclusive ones.
function boxOverlap(a, b) {
  const w = Math.min(a[2], b[2]) - Math.max(a[0], b[0]) - 1,
    h = Math.min(a[3], b[3]) - Math.max(a[1], b[1]) - 1;
  if (w <= 0 || h <= 0) return 0;
  const area = c => (c[2] - c[0] - 1) * (c[3] - c[1] - 1);
  return (w * h) / (area(a) + area(b) - w * h);
}

// Masks that pass the limits; then, best first, those whose box overlaps no better one too much.
function keptMasks({table, values}, limits) {
  const {score, stability, area, box} = table,
    most = limits.most * values.length;
  const passes = k =>
    area[k] > 0 &&
    area[k] >= limits.least &&
    area[k] <= most &&
    !(limits.score > 0 && score && score[k] <= limits.score) &&
    !(limits.stability > 0 && stability && stability[k] < limits.stability);
  const passing = [...area.keys()].filter(passes),
    kept = [];
  if (score) passing.sort((a, b) => score[b] - score[a]);
  for (const k of passing) if (kept.every(better => boxOverlap(box[better], box[k]) <= limits.overlap)) kept.push(k);
  return kept;
}

// A MaskView with sliders instead of a choice of layers.
class EverythingView {
  constructor(model, el) {
    this.model = model;
    this.limits = {...model.get("limits")};
    this.view = new MaskView(model, el, {
      plain: true,
      panel: () => this.panel(),
      loaded: view => {
        this.layer = view.layers[0];
        if (this.layer) this.filter();
      },
    });
    model.on("change:limits", () => {
      this.limits = {...model.get("limits")};
      if (this.layer) {
        this.filter();
        this.view.panel();
      }
    });
  }
  panel() {
    const {table, values} = this.layer ?? this.view.layers[0],
      most = Math.max(...table.area, 1),
      made = [];
    const add = (text, name, low, high, step) =>
      made.push(
        slider(
          text,
          low,
          high,
          step,
          this.limits[name],
          v => {
            this.limits[name] = v;
            this.filter();
          },
          () => this.report(),
        ),
      );
    if (table.score) add("predicted IoU", "score", this.model.get("lowest").score, 1, 0.01);
    if (table.stability) add("stability", "stability", this.model.get("lowest").stability, 1, 0.01);
    add("area from", "least", 0, Math.min(most, Math.ceil(values.length / 10)), 1);
    add("area to (share)", "most", 0, 1, 0.005);
    add("overlap", "overlap", 0, 1, 0.01);
    return made;
  }

  filter() {
    const {layer, view} = this,
      kept = (this.kept = keptMasks(layer, this.limits)),
      on = new Set(kept);
    layer.filteredOut = new Set([...layer.table.area.keys()].filter(k => !on.has(k)));
    view.repaint(layer);
    view.table?.fill();
    view.status.textContent = `${kept.length} of ${layer.count} masks`;
  }
  // To Python, when a slider is released.
  report() {
    this.view.sendState({limits: {...this.limits}, kept: this.kept});
  }
}
