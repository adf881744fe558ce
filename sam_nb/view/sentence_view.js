// An image with a mask over it. Python sends both as PNG; the page sends the list of clicks.

const COLOURS = ["#d22828", "#28aa46"]; // outside, inside
const decode = async bytes => bytes && bytes.byteLength ? createImageBitmap(new Blob([bytes], {type: "image/png"})) : null;

function render({model, el}) {
  const canvas = document.createElement("canvas"), bar = document.createElement("div"), context = canvas.getContext("2d");
  let image = null, mask = null;
  const send = points => { model.set("points", points); model.save_changes(); };
  const button = (text, act) => {
    const made = document.createElement("button");
    made.textContent = text; made.className = "jupyter-button"; made.style.width = "auto"; made.onclick = act;
    bar.append(made, " ");
  };
  const draw = () => {
    if (!image) return;
    const [height, width] = model.get("size"), zoom = Math.max(1, Math.round(512 / image.width));
    canvas.width = image.width * zoom; canvas.height = image.height * zoom;
    context.imageSmoothingEnabled = false;
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    if (mask) context.drawImage(mask, 0, 0, canvas.width, canvas.height);
    for (const [x, y, inside] of model.get("points")) {
      context.beginPath();
      context.arc((x + 0.5) * canvas.width / width, (y + 0.5) * canvas.height / height, 6, 0, 7);
      context.fillStyle = COLOURS[inside]; context.strokeStyle = "white"; context.lineWidth = 2;
      context.fill(); context.stroke();
    }
  };
  const load = async () => { [image, mask] = await Promise.all([decode(model.get("image")), decode(model.get("mask"))]); draw(); };
  canvas.onclick = event => {
    const at = canvas.getBoundingClientRect(), [height, width] = model.get("size");
    const x = Math.min(width - 1, Math.max(0, Math.floor((event.clientX - at.left) / at.width * width)));
    const y = Math.min(height - 1, Math.max(0, Math.floor((event.clientY - at.top) / at.height * height)));
    send([...model.get("points"), [x, y, event.shiftKey || event.altKey ? 0 : 1]]);
  };
  canvas.style.cssText = "max-width: 100%; cursor: crosshair";
  button("undo", () => send(model.get("points").slice(0, -1)));
  button("clear", () => send([]));
  bar.append("click: inside; Shift or Alt and click: outside");
  el.append(canvas, bar);
  model.on("change:image change:mask change:size", load);
  model.on("change:points", draw);
  load();
}
export default {render};
