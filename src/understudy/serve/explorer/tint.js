// Colours of a field: from a value between 0 and 1 to red, green and blue.

const ANCHORS = {
  mean: ["#0d2550", "#1f6f8b", "#6fb98f", "#f2c14e", "#fdf3d0"],
  width: ["#f7f2ea", "#f0c08a", "#d9792f", "#94390f", "#3d1104"],
};

const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

// 256 colours, three bytes each.
function table(anchors) {
  const stops = anchors.map(channels), found = new Uint8Array(3 * 256);
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (stops.length - 1), k = Math.min(stops.length - 2, Math.floor(place));
    for (let c = 0; c < 3; c++) found[3 * i + c] = Math.round(stops[k][c] + (place - k) * (stops[k + 1][c] - stops[k][c]));
  }
  return found;
}

const TABLES = Object.fromEntries(Object.entries(ANCHORS).map(([name, anchors]) => [name, table(anchors)]));

// Paint values (row by row, the first row at the top) between two ends into a canvas of that size.
export function painted(values, columns, rows, [low, high], name) {
  const canvas = new OffscreenCanvas(columns, rows), pen = canvas.getContext("2d");
  const image = pen.createImageData(columns, rows), colours = TABLES[name];
  for (let i = 0; i < values.length; i++) {
    const known = Number.isFinite(values[i]);
    const step = known ? Math.max(0, Math.min(255, Math.round((255 * (values[i] - low)) / (high - low || 1)))) : 0;
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = colours[3 * step + c];
    image.data[4 * i + 3] = known ? 255 : 0;
  }
  pen.putImageData(image, 0, 0);
  return canvas;
}
