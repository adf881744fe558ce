// The widget: bar, stage, side panel and status line over one image or several, and layers of masks.
// `options` let other widgets stand on it: plain (no choice of layers), table, tools(), panel(), loaded().
class MaskView {
  constructor(model, el, options = {}) {
    this.model = model;
    this.images = [];
    this.layers = [];
    this.options = options;
    this.state = {
      compare: model.get("compare"),
      divider: 0.5,
      opacity: model.get("opacity"),
      style: model.get("drawing"),
      image: 0,
      second: 0,
      layer: 0,
      other: 0,
      panes: () => this.panes(),
    };
    this.bar = h("div", {className: "samnb-bar samnb-tools"});
    this.side = h("div", {className: "samnb-side"});
    this.status = h("div", {className: "samnb-status", "aria-live": "polite"}, "loading");
    const stage = h("div", {className: "samnb-box"});
    el.classList.add("samnb");
    el.addEventListener("focusin", event => (event.target.dataset.lmSuppressShortcuts = "true")); // keys pressed here must not run JupyterLab's shortcuts
    el.append(
      withoutFallback(model.get("fallback")),
      this.bar,
      h("div", {className: "samnb-main"}, stage, this.side),
      this.status,
    );
    this.stage = new Stage(stage, this.state);
    this.stage.hover = at => this.hover(at);
    this.stage.click = at => this.select(at);
    this.stage.keys = this.keys();
    for (const name of ["images", "layers"]) model.on(`change:${name}`, () => (this.ready = this.load()));
    model.on("change:opacity", () => this.setOpacity(model.get("opacity"), false));
    model.on("change:compare", () => model.get("compare") !== this.state.compare && this.setCompare(model.get("compare"), false));
    this.ready = this.load();
  }
  keys() {
    const layers = [1, 2, 3, 4, 5, 6, 7, 8, 9].map(n => [String(n), () => n <= this.layers.length && this.setLayer(n - 1)]);
    return {
      "[": () => this.setOpacity(this.state.opacity - 0.1),
      "]": () => this.setOpacity(this.state.opacity + 0.1),
      o: () => this.nextStyle(),
      s: () => this.setCompare("swipe"),
      b: () => this.setCompare("side"),
      e: () => this.setCompare("errors"),
      h: () => {
        this.masksHidden = !this.masksHidden;
      },
      m: () => this.setImage((this.state.image + 1) % this.images.length),
      ...Object.fromEntries(layers),
    };
  }

  // Loading: unpack and paint what Python sent.

  async load() {
    const round = (this.round = (this.round || 0) + 1),
      began = performance.now(),
      maps = this.model.get("colormaps"),
      sent = this.model.get("layers");
    const images =
      this.sentImages === this.model.get("images") ? this.images : await Promise.all(this.model.get("images").map(i => openImage(i, maps)));
    if (!images.length) return;
    const {width, height} = images[0],
      layers = await Promise.all(sent.map(l => openLayer({...l, map: maps.viridis}, width)));
    if (round !== this.round || layers.some(l => l.values.length !== width * height)) return; // images and layers of another size: their update is still under way
    this.sentImages = this.model.get("images");
    this.lineWidth = Math.max(1, Math.round(Math.max(width, height) / 900));
    for (const layer of layers) {
      this.inherit(layer);
      paint(layer, width, height, this.lineWidth);
    }
    const kept = this.images === images;
    Object.assign(this, {images, layers, errors: null});
    this.truthIndex = layers.findIndex(l => l.name === this.model.get("truth"));
    this.predictionIndex = layers.findIndex(l => l.name === this.model.get("prediction"));
    this.state.layer = Math.min(this.state.layer, Math.max(0, layers.length - 1));
    if (!kept) {
      this.state.layer = Math.max(0, this.predictionIndex >= 0 ? this.predictionIndex : 0);
      this.state.second = Math.min(1, images.length - 1);
    }
    this.state.other =
      this.truthIndex >= 0 && this.truthIndex !== this.state.layer ? this.truthIndex : layers.length > 1 ? (this.state.layer + 1) % layers.length : 0;
    this.loaded = performance.now() - began;
    this.stage.canvas.dataset.loaded = this.loaded.toFixed(0);
    this.tools();
    this.panel();
    this.summarise();
    if (kept) this.stage.draw();
    else this.stage.size(width, height);
    this.options.loaded?.(this);
  }
  // A layer that is sent again keeps its colouring; a new one begins with the masks that Python hides.
  inherit(layer) {
    const old = this.layers.find(l => l.name === layer.name && l.kind === layer.kind),
      hidden = this.model.get("hidden")[layer.name] ?? [];
    if (old) layer.byClass = old.byClass;
    else for (const k of hidden) layer.hidden.add(k);
  }

  // What each pane shows.

  sendState(values) {
    for (const [key, value] of Object.entries(values)) this.model.set(key, value);
    this.model.save_changes();
  }
  pane(image, layer) {
    const {style, opacity} = this.state,
      l = this.layers[layer],
      fill = style !== "outline" || l?.kind === "scores";
    return {
      image: this.images[image].canvas,
      opacity,
      ...(l && !this.masksHidden ? {fill: fill ? l.fill : null, line: style === "fill" ? null : l.line} : {}),
      highlighted: this.highlighted?.layer === l && !this.masksHidden ? this.highlighted : null,
    };
  }
  panes() {
    if (!this.images.length) return [];
    const {image, second, layer, other, compare} = this.state;
    if (compare === "errors" && this.errors) return [{...this.pane(image, -1), fill: this.masksHidden ? null : this.errors.fill}];
    if (compare === "swipe") return [this.pane(image, other), this.pane(image, layer)];
    if (compare === "side")
      return this.layers.length > 1
        ? [this.pane(image, other), this.pane(second, layer)]
        : [this.pane(image, layer), this.images.length > 1 ? this.pane(second, layer) : this.pane(image, -1)];
    return [this.pane(image, layer)];
  }
  setOpacity(value, send = true) {
    this.state.opacity = Math.min(1, Math.max(0, Math.round(100 * value) / 100));
    this.opacity?.set(this.state.opacity);
    if (send) this.sendState({opacity: this.state.opacity});
    this.stage.draw();
  }
  nextStyle() {
    const all = ["both", "fill", "outline"];
    this.state.style = all[(all.indexOf(this.state.style) + 1) % 3];
    this.tools();
    this.sendState({drawing: this.state.style});
    this.stage.draw();
  }

  // Changes by the user; `send`: report them to Python.

  setCompare(name, send = true) {
    const usable = name === "errors" ? this.truthIndex >= 0 && this.predictionIndex >= 0 : name === "swipe" ? this.layers.length > 1 : true,
      was = this.stage.dual;
    this.state.compare = (this.state.compare === name && send) || !usable ? "one" : name;
    if (this.state.compare === "errors") this.findErrors();
    if (send) this.sendState({compare: this.state.compare});
    this.tools();
    this.summarise();
    if (this.stage.dual !== was) {
      this.stage.placed = false;
      this.stage.resize();
    } else this.stage.draw();
  }
  findErrors() {
    const {width, height} = this.images[0];
    this.errors = paintErrors(this.layers[this.truthIndex], this.layers[this.predictionIndex], width, height);
  }
  setImage(n) {
    this.state.second = this.state.image;
    this.state.image = n;
    this.tools();
    this.stage.draw();
  }
  setLayer(n) {
    if (n !== this.state.layer) this.state.other = this.state.layer;
    this.state.layer = n;
    this.highlighted = null;
    this.tools();
    this.panel();
    this.stage.draw();
  }
  repaint(layer) {
    const {width, height} = this.images[0];
    paint(layer, width, height, this.lineWidth);
    if (this.state.compare === "errors") this.findErrors();
    this.summarise();
    this.stage.draw();
  }

  // The bar: images, layers, opacity, drawing style, comparisons; window and colour map of numeric images.

  tools() {
    const image = this.images[this.state.image],
      gap = () => h("span", {className: "samnb-gap"});
    this.opacity ??= slider(
      "opacity",
      0,
      1,
      0.01,
      this.state.opacity,
      v => {
        this.state.opacity = v;
        this.stage.draw();
      },
      v => this.sendState({opacity: v}),
    );
    const styles = {both: "fill + line", fill: "fill", outline: "line"},
      style = chip(styles[this.state.style], () => this.nextStyle(), "fill, outline or both (key o)");
    const rest = [
      chip("fit", () => this.stage.fit(), "whole image (key 0)"),
      chip("PNG", () => this.download(), "save this view as a file"),
      ...(this.options.tools?.(this) ?? []),
    ];
    this.bar.replaceChildren(...this.choices(gap), this.opacity, style, ...this.comparisons(), ...rest);
    if (image?.kind === "values") this.bar.append(gap(), ...this.windowing(image));
  }

  choices(gap) {
    const {state} = this,
      made = [];
    const group = (of, now, act, title) => {
      if (of.length > 1)
        made.push(
          ...of.map((one, n) =>
            pressed(
              chip(one.name, () => act(n), title(n)),
              n === now,
            ),
          ),
          gap(),
        );
    };
    group(
      this.images,
      state.image,
      n => this.setImage(n),
      () => "show this image",
    );
    if (!this.options.plain)
      group(
        this.layers,
        state.layer,
        n => this.setLayer(n),
        n => `show this layer (key ${n + 1})`,
      );
    return made;
  }

  comparisons() {
    if (this.options.plain) return [];
    const several = this.layers.length > 1,
      both = this.truthIndex >= 0 && this.predictionIndex >= 0;
    const all = [
      ["swipe", "swipe", "a divider between two layers (key s)", several],
      ["side", "side by side", "key b", this.layers.length > 0 || this.images.length > 1],
      ["errors", "errors", "missed, false positive, another class (key e)", both],
    ];
    return all
      .filter(c => c[3])
      .map(([name, text, title]) =>
        pressed(
          chip(text, () => this.setCompare(name), title),
          this.state.compare === name,
        ),
      );
  }
  windowing(image) {
    const maps = this.model.get("colormaps"),
      again = () => {
        applyWindow(image, maps);
        this.stage.draw();
      },
      step = (image.most - image.least) / 500 || 1;
    const end = n =>
      slider(n ? "to" : "from", image.least, image.most, step, Number(image.window[n].toPrecision(4)), v => {
        image.window[n] = n ? Math.max(v, image.window[0] + step) : Math.min(v, image.window[1] - step);
        again();
      });
    return [
      dropdown(
        "colour map",
        Object.keys(maps).map(m => [m, m]),
        image.colormap,
        v => {
          image.colormap = v;
          again();
        },
      ),
      end(0),
      end(1),
    ];
  }

  // The side panel: a threshold for score maps, the table for masks.

  panel() {
    const layer = this.layers[this.state.layer],
      side = [];
    if (layer?.kind === "scores")
      side.push(
        slider("from score", 0, 1, 0.01, layer.threshold, v => {
          layer.threshold = v;
          this.repaint(layer);
        }),
        h("div", {className: "samnb-more"}, `${formatNumber(layer.low)} to ${formatNumber(layer.high)}`),
      );
    else if (layer) {
      if (layer.kind === "masks" && new Set(layer.table.class).size > 1)
        side.push(
          dropdown(
            "colours",
            [
              ["", "a colour a mask"],
              ["c", "a colour a class"],
            ],
            layer.byClass ? "c" : "",
            v => {
              layer.byClass = !!v;
              this.repaint(layer);
              this.table.fill();
            },
          ),
        );
      if (this.options.table !== false)
        this.table = new MaskTable(
          layer,
          () => this.repaint(layer),
          k => this.highlight(layer, k),
        );
      side.push(...(this.options.panel?.(this, layer) ?? []), this.table?.element ?? "");
    }
    this.side.replaceChildren(...side);
    this.side.style.display = layer || side.length ? "" : "none";
  }
  download() {
    this.stage.canvas.toBlob(blob => {
      const link = h("a", {href: URL.createObjectURL(blob), download: "masks.png"});
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }

  // The pointer: the mask under it is described in the status line and highlighted; a click sends it to Python (`selected`).

  layerUnder(at) {
    const {layer, other, compare} = this.state;
    return this.layers[(compare === "swipe" || (compare === "side" && this.layers.length > 1)) && at.pane === 0 ? other : layer];
  }
  hover(at) {
    const {width, height} = this.images[0] ?? {},
      x = at && Math.floor(at.ix),
      y = at && Math.floor(at.iy);
    if (!at || !(x >= 0 && y >= 0 && x < width && y < height)) {
      this.highlight(null, -1);
      return this.summarise();
    }
    const i = y * width + x,
      layer = this.layerUnder(at),
      image = this.images[this.state.image],
      parts = [`x ${x}, y ${y}`];
    if (image.values) parts.push(`${image.name} ${image.whole ? Math.round(valueAt(image, i)) : formatNumber(valueAt(image, i))}`);
    if (layer?.kind === "scores") parts.push(`${layer.name} ${(layer.low + ((layer.high - layer.low) * layer.values[i]) / 255).toFixed(3)}`);
    const k = layer?.top ? layer.top[layer.values[i]] : -1;
    if (k >= 0) parts.push(...this.describe(layer, k));
    this.highlight(layer, k);
    this.status.textContent = parts.join(" · ");
  }
  describe(layer, k) {
    const {table} = layer,
      truth = this.layers[this.truthIndex];
    const numbers = Object.keys(table)
      .filter(n => !["name", "class", "area", "box", "truth", "part of"].includes(n))
      .map(n =>
        n === "IoU" && table.truth?.[k] >= 0 && truth
          ? `IoU with ${truth.table.name[table.truth[k]]} (truth) ${table.IoU[k].toFixed(2)}`
          : `${n} ${formatNumber(table[n][k])}`,
      );
    return [table.name[k], ...numbers, `${table.area[k].toLocaleString("en")} px`];
  }
  select(at) {
    const {width, height} = this.images[0],
      x = Math.floor(at.ix),
      y = Math.floor(at.iy),
      layer = this.layerUnder(at);
    if (layer?.top && x >= 0 && y >= 0 && x < width && y < height)
      this.sendState({selected: [layer.name, layer.top[layer.values[y * width + x]]]});
  }

  highlight(layer, k) {
    if ((this.highlighted?.layer === layer && this.highlighted?.mask === k) || (!this.highlighted && k < 0)) return;
    this.highlighted = k < 0 || !layer.top ? null : {layer, mask: k, ...this.highlightOf(layer, k)};
    this.stage.draw();
  }
  // A mask in translucent white, within its box.
  highlightOf(layer, k) {
    const [x0, y0, x1, y1] = layer.table.box[k],
      width = x1 - x0,
      height = y1 - y0,
      own = layer.members.map(m => m.includes(k)),
      pixels = new Uint32Array(width * height);
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) if (own[layer.values[(y + y0) * this.images[0].width + x + x0]]) pixels[y * width + x] = 0x60ffffff;
    return {canvas: drawPixels(pixels, width, height), x: x0, y: y0};
  }
  summarise() {
    const layer = this.layers[this.state.layer],
      {compare} = this.state;
    if (compare !== "errors" || !this.errors) {
      const shown = layer?.table ? [...layer.table.name.keys()].filter(k => isShown(layer, k)).length : 0;
      this.status.textContent = !layer ? "no masks" : layer.table ? `${layer.name}: ${shown} of ${layer.count} shown` : layer.name;
      return;
    }
    const {counts} = this.errors,
      all = Object.values(counts).reduce((a, b) => a + b, 0) || 1;
    this.status.replaceChildren(
      ...Object.entries(counts)
        .filter(([, n]) => n)
        .flatMap(([kind, n]) => [
          h("span", {className: "samnb-swatch", style: `background:${rgb(ERROR_COLOURS[kind])}`}),
          ` ${kind} ${((100 * n) / all).toFixed(1)} %  `,
        ]),
    );
  }
}
