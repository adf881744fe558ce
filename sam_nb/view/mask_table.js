// A row for each class and each mask, with colour, area and scores; a checkbox shows or hides it.
const ROWS = 200; // of many masks the largest; the search field finds the others

class MaskTable {
  // `changed()` after a mask was shown or hidden; `select(mask)` while the pointer is over its row, -1: none.
  constructor(layer, changed, select) {
    Object.assign(this, {layer, changed, select, by: "area", rows: h("div", {className: "samnb-rows"})});
    const {table, count} = layer,
      all = on => this.showAll(on);
    this.numeric = Object.keys(table).filter(k => k !== "class" && typeof table[k][0] === "number");
    this.search = h("input", {
      type: "search",
      placeholder: `find among ${count}`,
      className: "samnb-search",
      "aria-label": "find a mask",
      oninput: () => this.fill(),
    });
    const order = dropdown(
      "sort by",
      this.numeric.map(k => [k, `by ${k}`]),
      this.by,
      v => {
        this.by = v;
        this.fill();
      },
    );
    const bar = h("div", {className: "samnb-bar"}, this.search, this.numeric.length > 1 && count > 8 ? order : null);
    bar.append(
      chip("all", () => all(true), "show all"),
      chip("none", () => all(false), "hide all"),
    );
    this.element = h("div", {className: "samnb-table"}, bar, this.rows);
    this.fill();
  }
  showAll(on) {
    this.layer.hiddenClasses.clear();
    this.layer.hidden = new Set(on ? [] : this.layer.table.name.keys());
    this.changed();
    this.fill();
  }
  row(shown, colour, text, numbers, hiddenSet, key, extra = {}) {
    const toggle = event => {
      if (event.target.checked) hiddenSet.delete(key);
      else hiddenSet.add(key);
      this.changed();
      this.fill();
    };
    const box = h("input", {type: "checkbox", checked: shown, "aria-label": `show ${text}`, onchange: toggle});
    const swatch = h("span", {className: "samnb-swatch", style: `background:${rgb(colour)}`}),
      name = h("span", {className: "samnb-name", title: text}, text);
    return h("div", {className: "samnb-row", ...extra}, box, swatch, name, h("span", {className: "samnb-number"}, numbers));
  }

  fill() {
    this.select(-1); // the row under the pointer is replaced and sends no pointerleave
    this.rows.replaceChildren(...this.classRows(), ...this.maskRows());
  }
  classRows() {
    const {layer} = this,
      {table} = layer;
    const classes = layer.kind === "masks" ? [...new Set(table.class)].filter(c => c >= 0).sort((a, b) => a - b) : [];
    return classes.map(c => {
      const own = table.class.flatMap((v, k) => (v === c ? [k] : [])),
        pixels = own.reduce((sum, k) => sum + table.area[k], 0);
      const numbers = `${own.length} x, ${pixels.toLocaleString("en")} px`;
      return this.row(!layer.hiddenClasses.has(c), layer.classColours[c], layer.classes[c] ?? `class ${c}`, numbers, layer.hiddenClasses, c, {
        className: "samnb-row samnb-class",
      });
    });
  }
  maskRows() {
    const {layer, by} = this,
      {table} = layer,
      word = this.search.value.toLowerCase();
    const wanted = [...table.name.keys()].filter(k => !layer.filteredOut.has(k) && table.name[k].toLowerCase().includes(word));
    const columns = this.numeric.filter(n => n === "score" || n === "IoU" || (n === by && by !== "area"));
    const rows = wanted
      .sort((a, b) => table[by][b] - table[by][a])
      .slice(0, ROWS)
      .map(k => {
        const numbers = [...columns.map(n => `${n} ${formatNumber(table[n][k])}`), `${table.area[k].toLocaleString("en")} px`].join(", ");
        const attributes = {onpointerenter: () => this.select(k), onpointerleave: () => this.select(-1), "data-mask": k};
        return this.row(isShown(layer, k), colourOf(layer, k), table.name[k], numbers, layer.hidden, k, attributes);
      });
    if (wanted.length > ROWS) rows.push(h("div", {className: "samnb-more"}, `and ${wanted.length - ROWS} smaller ones`));
    return rows;
  }
}
