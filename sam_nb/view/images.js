// Bytes from Python -> numbers -> pixels on a canvas.

const bytesOf = message => new Uint8Array(message.buffer, message.byteOffset, message.byteLength);
const numbersOf = (message, Kind) => new Kind(bytesOf(message).slice().buffer);

// The reverse of mask_layers._pack_rows: inflate, then undo the XOR with the row above.
async function unpack(message, bits, width) {
  const stream = new Blob([bytesOf(message)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const values = new {8: Uint8Array, 16: Uint16Array, 32: Uint32Array}[bits](buffer);
  for (let i = width; i < values.length; i++) values[i] ^= values[i - width];
  return values;
}

function newCanvas(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

function drawPixels(pixels, width, height, canvas = newCanvas(width, height)) {
  canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height), 0, 0);
  return canvas;
}

// A colour as one number, in the byte order of ImageData.
const packColour = ([r, g, b], alpha = 255) => ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;

// A picture is decoded by the browser; numbers (8 or 16 bits) are coloured through a window and a colour map.
async function openImage(message, maps) {
  const [height, width] = message.size;
  if (message.kind === "picture") return {...message, width, height, canvas: await createImageBitmap(new Blob([bytesOf(message.data)]))};
  const image = {...message, width, height, values: await unpack(message.data, message.bits, width), window: [...message.window]};
  return applyWindow(image, maps);
}

// Colour the numbers again after the window or the colour map has changed.
function applyWindow(image, maps) {
  const map = bytesOf(maps[image.colormap]),
    levels = 2 ** image.bits,
    [low, high] = image.window,
    table = new Uint32Array(levels);
  for (let i = 0; i < levels; i++) {
    const value = image.least + ((image.most - image.least) * i) / (levels - 1);
    const at = 3 * Math.max(0, Math.min(255, Math.round((255 * (value - low)) / (high - low))));
    table[i] = packColour([map[at], map[at + 1], map[at + 2]]);
  }
  const pixels = new Uint32Array(image.values.length);
  for (let i = 0; i < pixels.length; i++) pixels[i] = table[image.values[i]];
  image.canvas = drawPixels(pixels, image.width, image.height, image.canvas);
  return image;
}

// The original value of pixel i, in the units of the image.
const valueAt = (image, i) => image.least + ((image.most - image.least) * image.values[i]) / (2 ** image.bits - 1);
