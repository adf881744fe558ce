// A canvas with a scale and an offset, of one pane or two: cut by a divider (swipe), or side by side.
// Dragging moves, the wheel zooms at the pointer, a double click fits. `decorate` draws over the image, `tool` takes the pointer.
class Stage {
  constructor(el, state) {
    this.canvas = Object.assign(document.createElement("canvas"), {className: "samnb-stage", tabIndex: 0});
    this.canvas.setAttribute("role", "img");
    this.context = this.canvas.getContext("2d");
    this.state = state;
    this.view = {scale: 1, x: 0, y: 0};
    this.decorate = () => {};
    this.tool = null;
    el.append(this.canvas);
    new ResizeObserver(() => this.resize()).observe(el);
    this.listen();
  }
  get dual() {
    return this.state.compare === "side";
  }
  get paneWidth() {
    return this.dual ? this.width / 2 - 2 : this.width;
  }

  // Size and place.

  size(width, height) {
    Object.assign(this, {image: {width, height}, placed: false});
    this.resize();
  }
  resize() {
    const available = this.canvas.parentElement.clientWidth;
    if (!this.image || !available) return;
    const {width, height} = this.image,
      highest = Math.max(360, 0.72 * window.innerHeight),
      fitted = ((this.dual ? available / 2 : available) * height) / width;
    const same = this.width === available;
    this.width = available;
    this.height = Math.round(Math.min(highest, Math.max(240, fitted)));
    const ratio = (this.ratio = window.devicePixelRatio || 1);
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.canvas.style.height = this.height + "px";
    if (same && this.placed) this.draw();
    else this.fit();
  }
  fit() {
    const {width, height} = this.image,
      scale = Math.min(this.paneWidth / width, this.height / height);
    this.view = {scale, x: (this.paneWidth - width * scale) / 2, y: (this.height - height * scale) / 2};
    this.placed = true;
    this.draw();
  }
  zoom(factor, x = this.paneWidth / 2, y = this.height / 2) {
    const v = this.view,
      scale = Math.min(64, Math.max(0.02, v.scale * factor)),
      f = scale / v.scale;
    this.view = {scale, x: x - (x - v.x) * f, y: y - (y - v.y) * f};
    this.draw();
  }
  // Pointer -> pane, x and y in the pane, x across the canvas, image coordinates ix and iy.
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    let x = ((event.clientX - box.left) * this.width) / box.width,
      y = ((event.clientY - box.top) * this.height) / box.height,
      pane = 0;
    const across = x;
    if (this.dual && x > this.width / 2) {
      pane = 1;
      x -= this.width / 2 + 2;
    }
    if (this.state.compare === "swipe") pane = x > this.state.divider * this.width ? 1 : 0;
    return {pane, x, y, across, ix: (x - this.view.x) / this.view.scale, iy: (y - this.view.y) / this.view.scale};
  }
  // At most once a frame.
  draw() {
    if (!this.frame)
      this.frame = requestAnimationFrame(() => {
        this.frame = 0;
        this.drawNow();
      });
  }

  // One frame. `data-view` and `data-drawn` on the canvas are read by the browser tests.

  drawNow() {
    const {context: c, state, ratio, view} = this,
      panes = state.panes ? state.panes() : [];
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, this.canvas.width, this.canvas.height);
    panes.forEach((pane, n) => {
      c.save();
      c.setTransform(ratio, 0, 0, ratio, 0, 0);
      c.beginPath();
      const cut = state.divider * this.width;
      if (this.dual) {
        c.rect(n * (this.width / 2 + 2), 0, this.paneWidth, this.height);
        c.clip();
        c.translate(n * (this.width / 2 + 2), 0);
      } else if (panes.length > 1) {
        c.rect(n ? cut : 0, 0, n ? this.width - cut : cut, this.height);
        c.clip();
      }
      c.translate(view.x, view.y);
      c.scale(view.scale, view.scale);
      c.imageSmoothingEnabled = view.scale * ratio < 1.5;
      c.imageSmoothingQuality = "low";
      this.drawPane(c, pane);
      c.restore();
    });
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (panes.length > 1 && !this.dual) {
      c.fillStyle = "white";
      c.fillRect(state.divider * this.width - 1, 0, 2, this.height);
    }
    this.canvas.dataset.view = [view.scale, view.x, view.y].join(" ");
    this.canvas.dataset.drawn = 1 + Number(this.canvas.dataset.drawn || 0);
  }
  drawPane(c, {image, fill, line, opacity, highlighted}) {
    const {width, height} = this.image;
    if (image) c.drawImage(image, 0, 0, width, height);
    if (fill) {
      c.globalAlpha = opacity;
      c.drawImage(fill, 0, 0, width, height);
      c.globalAlpha = 1;
    }
    if (line) c.drawImage(line, 0, 0, width, height);
    if (highlighted) c.drawImage(highlighted.canvas, highlighted.x, highlighted.y);
    this.decorate(c, this.view.scale);
  }

  // The pointer moves the divider, serves the tool, or drags the image; a press without a move is a click.

  listen() {
    const {canvas} = this;
    for (const kind of ["down", "move", "up"]) canvas["onpointer" + kind] = event => this[kind](this.at(event), event);
    canvas.onpointerleave = event => {
      if (!this.drag) this.hover?.(null, event);
    };
    canvas.ondblclick = () => {
      if (!this.tool) this.fit();
    };
    canvas.oncontextmenu = event => {
      event.preventDefault();
      event.stopPropagation();
    };
    const wheel = event => {
      const {x, y} = this.at(event);
      this.zoom(Math.exp(-event.deltaY / 400), x, y);
      event.preventDefault();
      event.stopPropagation();
    };
    canvas.addEventListener("wheel", wheel, {passive: false});
    canvas.onkeydown = event => this.key(event);
  }
  down(at, event) {
    const {canvas, state} = this,
      toolMayAct = event.button !== 1 && !event.ctrlKey && !event.metaKey;
    canvas.focus({preventScroll: true});
    canvas.setPointerCapture(event.pointerId);
    if (state.compare === "swipe" && Math.abs(at.across - state.divider * this.width) < 8) this.drag = {divider: true};
    else if (this.tool && toolMayAct && this.tool.down(at, event)) this.drag = {tool: true};
    else this.drag = {x: event.clientX, y: event.clientY, view: {...this.view}, moved: false};
    event.preventDefault();
  }
  move(at, event) {
    const {drag} = this;
    if (!drag) return this.hover?.(at, event);
    if (drag.divider) this.state.divider = Math.min(1, Math.max(0, at.across / this.width));
    else if (drag.tool) this.tool.move?.(at, event);
    else {
      const dx = event.clientX - drag.x,
        dy = event.clientY - drag.y;
      drag.moved ||= Math.hypot(dx, dy) > 3;
      this.view = {...this.view, x: drag.view.x + dx, y: drag.view.y + dy};
    }
    this.draw();
  }
  up(at, event) {
    const drag = this.drag;
    this.drag = null;
    if (drag?.tool) this.tool.up?.(at, event);
    else if (drag && !drag.divider && !drag.moved) this.click?.(at, event);
    this.draw();
  }

  // Keys, while the canvas has the focus; `keys` has those of the widget.

  key(event) {
    const zoom = factor => () => this.zoom(factor),
      move = (x, y) => () => {
        this.view.x += x;
        this.view.y += y;
      };
    const usual = {
      "+": zoom(1.25),
      "=": zoom(1.25),
      "-": zoom(0.8),
      0: () => this.fit(),
      ArrowLeft: move(40, 0),
      ArrowRight: move(-40, 0),
      ArrowUp: move(0, 40),
      ArrowDown: move(0, -40),
    };
    const act = {...usual, ...this.keys}[(event.ctrlKey || event.metaKey ? "ctrl+" : "") + event.key];
    if (!act) return;
    act(event);
    event.preventDefault();
    event.stopPropagation();
    this.draw();
  }
}
