// The prompts for one object, with undo and redo.
class History {
  constructor() {
    this.past = [];
    this.now = {clicks: [], box: null, strokes: [], candidate: 0};
    this.future = [];
  }
  change(values) {
    this.past.push(this.now);
    this.now = {...this.now, ...values};
    this.future = [];
    return this.now;
  }
  undo() {
    if (this.past.length) {
      this.future.push(this.now);
      this.now = this.past.pop();
    }
    return this.now;
  }
  redo() {
    if (this.future.length) {
      this.past.push(this.now);
      this.now = this.future.pop();
    }
    return this.now;
  }
  clear() {
    return this.empty ? this.now : this.change({clicks: [], box: null, strokes: [], candidate: 0});
  }
  get empty() {
    const {clicks, box, strokes} = this.now;
    return !clicks.length && !box && !strokes.length;
  }
}

// Points, a box and a brush on a MaskView without table. Each request has a serial number;
// the page stops waiting when the reply to the latest one arrives.
class PromptView {
  constructor(model, el) {
    this.model = model;
    this.history = new History();
    this.mode = "point";
    this.serial = 0;
    this.shown = 0; // serial of the answer that is on the canvas
    this.queue = []; // messages for the time after the answer
    this.radius = 8;
    const options = {plain: true, table: false, tools: () => this.tools(), panel: () => this.panel(), loaded: () => this.drawn()};
    this.view = new MaskView(model, el, options);
    const {stage} = this.view;
    stage.tool = {down: (at, event) => this.down(at, event), move: at => this.move(at), up: (at, event) => this.up(at, event)};
    stage.decorate = (context, scale) => this.decorate(context, scale);
    Object.assign(stage.keys, this.keys());
    model.on("change:answer", () => this.receive());
    model.on("change:objects", () => this.view.panel());
    model.on("change:picture", () => {
      this.history = new History();
      this.view.tools();
    });
  }
  // Pixels of the page's image per pixel of the original: large images are sent smaller.
  get zoomed() {
    return this.view.images[0].width / this.model.get("size")[1];
  }

  // Keys, and messages to Python.

  keys() {
    const step = name => () => this.request(this.history[name]()),
      pick = n => () => this.pick(n);
    return {
      p: () => this.setMode("point"),
      x: () => this.setMode("box"),
      d: () => this.setMode("brush"),
      r: () => this.setMode("rubber"),
      u: step("undo"),
      y: step("redo"),
      c: step("clear"),
      "ctrl+z": step("undo"),
      "ctrl+y": step("redo"),
      "ctrl+Z": step("redo"),
      Enter: () => this.keep(),
      1: pick(0),
      2: pick(1),
      3: pick(2),
    };
  }
  // Pointer -> pixel of the original image.
  scaled(at) {
    const [height, width] = this.model.get("size"),
      {width: w, height: h} = this.view.images[0];
    return [
      Math.min(width - 1, Math.max(0, Math.floor((at.ix * width) / w))),
      Math.min(height - 1, Math.max(0, Math.floor((at.iy * height) / h))),
    ];
  }
  setMode(mode) {
    this.mode = mode;
    this.view.tools();
  }
  send(message, buffers = []) {
    this.model.send(message, undefined, buffers);
  }
  // While a prompt waits for the answer to the one before it, a message would overtake it.
  sendAfterAnswer(message) {
    if (this.waiting) this.queue.push(message);
    else this.send(message);
  }

  // Requests and answers.

  request(prompt) {
    this.serial++;
    this.waiting = true;
    this.view.stage.canvas.dataset.request = this.serial;
    this.sentAt = performance.now();
    clearTimeout(this.timeout);
    this.timeout = setTimeout(() => {
      this.view.status.textContent = "No answer from Python: the kernel is busy or gone. The drawing stays.";
    }, 5000);
    this.model.set("prompt", {...prompt, serial: this.serial});
    this.model.save_changes();
    this.view.tools();
    this.view.stage.draw();
  }
  pick(n) {
    if (n < (this.model.get("answer").scores ?? []).length) this.request(this.history.change({candidate: n}));
  }
  receive() {
    const answer = this.model.get("answer");
    if (answer.serial !== this.serial && answer.serial !== undefined) return;
    clearTimeout(this.timeout);
    if (answer.kept !== undefined) this.history = new History(); // the next object
    this.view.tools();
    this.view.stage.draw();
    this.describe();
    this.settle();
    this.waiting = false;
    for (const message of this.queue.splice(0)) this.send(message);
  }
  // An answer is shown when its layers are loaded, or at once where the masks stay the same.
  async settle() {
    await null; // layers and answer arrive in one message, in any order
    const {ready} = this.view;
    await ready;
    if (ready === this.view.ready) this.drawn();
  }
  describe() {
    const {error, scores, ms, note} = this.model.get("answer"),
      {candidate} = this.history.now;
    if (error || note) {
      this.view.status.textContent = error ?? note;
      return;
    }
    if (!scores?.length || this.history.empty) {
      this.view.status.textContent = "Click on an object. Shift or the right button: background. Enter keeps the mask.";
      return;
    }
    this.view.status.textContent = `predicted IoU ${scores[Math.min(candidate, scores.length - 1)].toFixed(2)} · ${ms.toFixed(0)} ms in Python`;
  }
  // The masks of an answer are painted; the next frame shows them.
  drawn() {
    this.shown = this.model.get("answer").serial ?? 0;
    if (this.sentAt && this.shown === this.serial) {
      this.view.stage.canvas.dataset.latency = (performance.now() - this.sentAt).toFixed(0);
      this.sentAt = 0;
    }
    this.view.stage.draw();
    this.describe();
  }

  // The pointer. Point: click inside, Shift or the right button outside. Box, brush and rubber: drag. Ctrl and drag moves the image.

  down(at, event) {
    const inside = at.ix >= 0 && at.iy >= 0 && at.ix < this.view.images[0].width && at.iy < this.view.images[0].height;
    if (!inside || (event.button === 2 && this.mode !== "point")) return false;
    this.draft =
      this.mode === "point"
        ? {point: true}
        : this.mode === "box"
          ? {from: this.scaled(at), to: this.scaled(at)}
          : {path: [...this.scaled(at)]};
    return true;
  }
  move(at) {
    if (this.draft?.from) this.draft.to = this.scaled(at);
    if (this.draft?.path) this.draft.path.push(...this.scaled(at));
  }
  up(at, event) {
    const {draft, history} = this,
      outside = event.shiftKey || event.altKey || event.button === 2;
    this.draft = null;
    if (!draft) return;
    if (draft.point) return this.request(history.change({clicks: [...history.now.clicks, [...this.scaled(at), outside ? 0 : 1]]}));
    if (draft.path)
      return this.request(history.change({strokes: [...history.now.strokes, [this.radius, this.mode === "brush" ? 1 : 0, ...draft.path]]}));
    const [x0, x1] = [draft.from[0], draft.to[0]].sort((a, b) => a - b),
      [y0, y1] = [draft.from[1], draft.to[1]].sort((a, b) => a - b);
    if (x1 - x0 > 1 && y1 - y0 > 1) this.request(history.change({box: [x0, y0, x1, y1]}));
  }

  // Prompts over the image: a plus on green inside, a minus on orange outside, so that colour is not the only sign.

  decorate(c, scale) {
    this.view.stage.canvas.dataset.answer = this.shown; // the browser tests wait until it equals data-request
    const k = this.zoomed,
      {clicks, strokes} = this.history.now,
      box = this.draft?.from ? [...this.draft.from, ...this.draft.to] : this.history.now.box;
    c.lineWidth = 2 / scale;
    c.lineCap = c.lineJoin = "round";
    const paths = this.draft?.path ? [...strokes, [this.radius, this.mode === "brush" ? 1 : 0, ...this.draft.path]] : strokes;
    for (const [radius, paint, ...path] of paths) {
      c.beginPath();
      c.moveTo(path[0] * k, path[1] * k);
      for (let i = 0; i < path.length; i += 2) c.lineTo(path[i] * k + 0.01, path[i + 1] * k);
      c.lineWidth = 2 * radius * k;
      c.strokeStyle = paint ? "rgba(0, 114, 178, 0.35)" : "rgba(230, 159, 0, 0.35)";
      c.stroke();
      c.lineWidth = 2 / scale;
    }
    if (box) {
      const [x0, y0, x1, y1] = box.map(v => v * k);
      c.strokeStyle = "white";
      c.strokeRect(x0, y0, x1 - x0, y1 - y0);
      c.setLineDash([6 / scale, 4 / scale]);
      c.strokeStyle = "#0072b2";
      c.strokeRect(x0, y0, x1 - x0, y1 - y0);
      c.setLineDash([]);
    }
    for (const [x, y, inside] of clicks) this.dot(c, (x + 0.5) * k, (y + 0.5) * k, inside, scale);
  }
  dot(c, x, y, inside, scale) {
    const r = 7 / scale;
    c.beginPath();
    c.arc(x, y, r, 0, 7);
    c.fillStyle = inside ? "#009e73" : "#d55e00";
    c.fill();
    c.strokeStyle = "white";
    c.stroke();
    c.beginPath();
    c.moveTo(x - r / 2, y);
    c.lineTo(x + r / 2, y);
    if (inside) {
      c.moveTo(x, y - r / 2);
      c.lineTo(x, y + r / 2);
    }
    c.stroke();
  }

  // Buttons, candidates with their predicted IoU, and the kept objects.

  tools() {
    const {history} = this,
      {scores = []} = this.model.get("answer"),
      able = (made, on) => {
        made.disabled = !on;
        return made;
      },
      gap = () => h("span", {className: "samnb-gap"});
    const modes = [
      ["point", "point", "click: inside; Shift or right button: outside (key p)"],
      ["box", "box", "drag (key x)"],
      ["brush", "brush", "paint a rough mask (key d)"],
      ["rubber", "rubber", "erase strokes (key r)"],
    ];
    const made = [
      gap(),
      ...modes.map(([mode, text, title]) =>
        pressed(
          chip(text, () => this.setMode(mode), title),
          this.mode === mode,
        ),
      ),
    ];
    if (this.mode === "brush" || this.mode === "rubber")
      made.push(
        slider("width", 1, 60, 1, this.radius, v => {
          this.radius = v;
        }),
      );
    made.push(
      gap(),
      able(
        chip("undo", () => this.request(history.undo()), "Ctrl Z"),
        history.past.length,
      ),
      able(
        chip("redo", () => this.request(history.redo()), "Ctrl Y"),
        history.future.length,
      ),
      able(
        chip("clear", () => this.request(history.clear()), "key c"),
        !history.empty,
      ),
    );
    if (scores.length > 1 && !history.empty)
      made.push(
        gap(),
        ...scores.map((s, n) =>
          pressed(
            chip(`${n + 1}: ${s.toFixed(2)}`, () => this.pick(n), `candidate ${n + 1} with its predicted IoU (key ${n + 1})`),
            n === history.now.candidate,
          ),
        ),
      );
    return made;
  }

  panel() {
    const objects = this.model.get("objects"),
      names = this.model.get("classes");
    this.classField ??= h("input", {
      className: "samnb-search",
      value: names[0] ?? "object",
      "aria-label": "class of the object",
      title: "class of the object",
    });
    this.classField.setAttribute("list", (this.listName ??= `samnb-${Math.random().toString(36).slice(2)}`));
    const list = h("datalist", {id: this.listName}, ...names.map(value => h("option", {value})));
    const keep = h(
      "div",
      {className: "samnb-bar"},
      this.classField,
      list,
      chip("keep", () => this.keep(), "keep this mask (Enter)"),
    );
    const rows = objects.map((o, n) =>
      h(
        "div",
        {className: "samnb-row samnb-kept"},
        h("span", {className: "samnb-swatch", style: `background:${rgb(o.colour)}`}),
        h("span", {className: "samnb-name"}, o.name),
        h("span", {className: "samnb-number"}, `${o.area.toLocaleString("en")} px`),
        chip("edit", () => this.edit(n), "change the prompts of this object"),
        chip("x", () => this.send({do: "remove", index: n}), "remove this object"),
      ),
    );
    const saved = h(
      "div",
      {className: "samnb-bar"},
      "save",
      ...this.model.get("forms").map(form => chip(form, () => this.sendAfterAnswer({do: "save", form}), `to ${this.model.get("folder")}`)),
    );
    return [keep, ...rows, saved, this.fileChooser()];
  }

  keep() {
    this.sendAfterAnswer({do: "keep", name: this.classField.value});
  }
  edit(n) {
    const {prompt} = this.model.get("objects")[n];
    this.send({do: "remove", index: n});
    this.request(this.history.change({clicks: prompt.clicks, box: prompt.box, strokes: prompt.strokes, candidate: prompt.candidate}));
  }

  fileChooser() {
    const file = h("input", {
      type: "file",
      accept: "image/*",
      style: "display:none",
      onchange: async () => {
        const chosen = file.files[0];
        if (chosen) this.send({do: "open", name: chosen.name}, [await chosen.arrayBuffer()]);
      },
    });
    return h(
      "div",
      {className: "samnb-bar"},
      chip("open another picture", () => file.click(), "from this computer"),
      file,
    );
  }
}
