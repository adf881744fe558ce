// Layers of masks (see mask_layers.py): a map of region numbers, the masks of each region, a table with a row per mask.

// Masks of each region are sorted from small to large; `first`, where given, comes before all.
async function openLayer(message, width) {
  const layer = {
    ...message,
    values: await unpack(message.data, message.bits, width),
    hidden: new Set(),
    hiddenClasses: new Set(),
    filteredOut: new Set(),
    byClass: false,
  };
  if (message.kind === "scores") return Object.assign(layer, {threshold: 0});
  const members = numbersOf(message.members, Uint32Array),
    ends = numbersOf(message.ends, Uint32Array),
    area = message.table.area;
  layer.members = Array.from({length: ends.length - 1}, (_, r) =>
    Array.from(members.subarray(ends[r], ends[r + 1])).sort(
      (a, b) => (b === message.first) - (a === message.first) || area[a] - area[b] || b - a,
    ),
  );
  layer.count = message.table.name.length;
  return layer;
}

const isShown = (layer, k) => !layer.hidden.has(k) && !layer.filteredOut.has(k) && !layer.hiddenClasses.has(layer.table.class[k]);
const colourOf = (layer, k) => (layer.byClass && layer.table.class[k] >= 0 ? layer.classColours[layer.table.class[k]] : layer.colours[k]);

// The mask that is seen in each region: the smallest that is shown; -1: none.
function topMasks(layer) {
  const top = new Int32Array(layer.members.length).fill(-1);
  layer.members.forEach((masks, r) => {
    const k = masks.find(m => isShown(layer, m));
    if (k !== undefined) top[r] = k;
  });
  return top;
}

// Redraw the two pictures of a layer, filled masks and outlines, after something was shown or hidden.
function paint(layer, width, height, lineWidth) {
  if (layer.kind === "scores") return paintScores(layer, width, height);
  const {values} = layer,
    top = (layer.top = topMasks(layer)),
    table = new Uint32Array(top.length);
  top.forEach((k, r) => {
    if (k >= 0) table[r] = packColour(colourOf(layer, k));
  });
  const fill = new Uint32Array(values.length),
    line = new Uint32Array(values.length);
  for (let i = 0; i < fill.length; i++) fill[i] = table[values[i]];
  const other = (i, k) => top[values[i]] !== k;
  for (let y = 0, i = 0; y < height; y++)
    for (let x = 0; x < width; x++, i++) {
      const k = top[values[i]];
      if (k < 0) continue; // outlines lie inside their mask; between two masks, on one side only
      for (let d = 1; d <= lineWidth && !line[i]; d++) {
        const after = (x + d < width && other(i + d, k)) || (y + d < height && other(i + d * width, k));
        const before = (x >= d && top[values[i - d]] < 0) || (y >= d && top[values[i - d * width]] < 0);
        if (after || before) line[i] = fill[i];
      }
    }
  layer.fill = drawPixels(fill, width, height, layer.fill);
  layer.line = drawPixels(line, width, height, layer.line);
}

// A score map in the colours of its colour map, transparent below the threshold.
function paintScores(layer, width, height) {
  const map = bytesOf(layer.map),
    table = new Uint32Array(256),
    pixels = new Uint32Array(layer.values.length);
  for (let i = 0; i < 256; i++) if (i >= 255 * layer.threshold) table[i] = packColour([map[3 * i], map[3 * i + 1], map[3 * i + 2]]);
  for (let i = 0; i < pixels.length; i++) pixels[i] = table[layer.values[i]];
  layer.fill = drawPixels(pixels, width, height, layer.fill);
  layer.line = null;
}

// Colours of Okabe and Ito, which red-green blind people tell apart.
const ERROR_COLOURS = {missed: [230, 159, 0], "false positive": [0, 114, 178], "another class": [204, 121, 167], hit: [0, 158, 115]};

// Where truth and prediction differ. Label maps are compared whole, hidden classes too; of masks, those that are shown.
function paintErrors(truth, prediction, width, height) {
  const classOf = layer =>
    layer.kind === "labels"
      ? layer.members.map(m => (m.length ? layer.table.class[m[0]] : -1))
      : Array.from(topMasks(layer), k => Math.min(k, 0));
  const [t, p] = [classOf(truth), classOf(prediction)],
    same = truth.kind === "labels" && prediction.kind === "labels";
  const pixels = new Uint32Array(truth.values.length),
    counts = {missed: 0, "false positive": 0, "another class": 0, hit: 0},
    visible = topMasks(truth);
  for (let i = 0; i < pixels.length; i++) {
    const a = t[truth.values[i]],
      b = p[prediction.values[i]];
    if (a < 0 && (b < 0 || same)) continue; // no mask, or an unlabelled pixel
    const kind = a < 0 ? "false positive" : b < 0 ? "missed" : same && a !== b ? "another class" : "hit";
    counts[kind]++;
    if (kind !== "hit" || visible[truth.values[i]] >= 0) pixels[i] = packColour(ERROR_COLOURS[kind], kind === "hit" ? 90 : 255);
  }
  return {fill: drawPixels(pixels, width, height), counts};
}
