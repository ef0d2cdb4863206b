// Drawing on a canvas in CSS pixels, in the colours of the page.

const FONT = 12;
const SHADES = 12;
const EDGE = 3; // by which dots may reach over the frame

let colours = {};

// Read the colours of the present theme; called whenever it changes.
export function readColours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["paper", "surface", "ink", "muted", "line", "accent", "accent-soft", "signal", "band", "grid"];
  colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue("--" + name).trim()]));
  colours.font = FONT + "px " + getComputedStyle(document.body).fontFamily;
}

export const colour = (name) => colours[name];

export class Picture {
  // A canvas as wide as its place, and as high as asked.
  constructor(canvas) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    this.width = this.height = 0;
  }

  begin(width, height) {
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== w || this.canvas.height !== h) {
      [this.canvas.width, this.canvas.height] = [w, h];
      this.canvas.style.height = height + "px";
    }
    [this.width, this.height] = [width, height];
    this.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.pen.clearRect(0, 0, width, height);
    this.pen.font = colours.font;
    this.pen.lineJoin = "round";
  }

  // Paint something, or what it looked like when it was last painted with the same key.
  kept(key, paint) {
    const { canvas, pen } = this;
    if (this.key !== key) {
      paint();
      this.copy = new OffscreenCanvas(canvas.width, canvas.height);
      this.copy.getContext("2d").drawImage(canvas, 0, 0);
      this.key = key;
      return;
    }
    pen.save();
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.drawImage(this.copy, 0, 0);
    pen.restore();
  }

  // The part of the canvas within margins, and scales that fill it.
  frame(x, y, { left, right, top, bottom }) {
    this.box = { left, top, right: this.width - right, bottom: this.height - bottom };
    this.x = (v) => this.box.left + x.unit(v) * (this.box.right - this.box.left);
    this.y = (v) => this.box.bottom - y.unit(v) * (this.box.bottom - this.box.top);
    this.scales = { x, y };
  }

  axes({ grid = true } = {}) {
    const { box, pen, scales } = this;
    pen.lineWidth = 1;
    this.#across(scales.y.ticks(Math.max(2, Math.floor((box.bottom - box.top) / 42))), grid);
    this.#down(scales.x.ticks(Math.max(2, Math.floor((box.right - box.left) / 62))), grid);
    pen.strokeStyle = colours.line;
    pen.beginPath();
    pen.moveTo(box.left, box.top);
    pen.lineTo(box.left, box.bottom);
    pen.lineTo(box.right, box.bottom);
    pen.stroke();
  }

  #across(ticks, grid) {
    const { box, pen, scales } = this;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    let before = Infinity;
    for (const v of ticks) {
      const y = Math.round(this.y(v)) + 0.5;
      if (grid && scales.y.kind !== "choices") this.#stroke(colours.grid, [[box.left, y], [box.right, y]]);
      if (before - y < FONT + 2) continue;
      before = y;
      pen.fillStyle = colours.muted;
      pen.fillText(cut(pen, scales.y.text(v), box.left - 8), box.left - 6, y);
    }
  }

  #down(ticks, grid) {
    const { box, pen, scales } = this;
    pen.textAlign = "center";
    pen.textBaseline = "top";
    let free = -Infinity;
    const room = scales.x.kind === "choices" ? Math.max(18, (box.right - box.left) / ticks.length - 4) : Infinity;
    for (const v of ticks) {
      const x = Math.round(this.x(v)) + 0.5;
      if (grid && scales.x.kind !== "choices") this.#stroke(colours.grid, [[x, box.top], [x, box.bottom]]);
      const text = cut(pen, scales.x.text(v), room), half = pen.measureText(text).width / 2;
      const middle = Math.min(Math.max(x, half), this.width - half);
      if (middle - half < free) continue;
      free = middle + half + (room === Infinity ? 8 : 2);
      pen.fillStyle = colours.muted;
      pen.fillText(text, middle, box.bottom + 6);
    }
  }

  #stroke(style, points) {
    this.pen.strokeStyle = style;
    this.pen.beginPath();
    points.forEach(([x, y], i) => (i ? this.pen.lineTo(x, y) : this.pen.moveTo(x, y)));
    this.pen.stroke();
  }

  // Everything that `work` draws stays within the frame.
  inside(work) {
    const { left, top, right, bottom } = this.box;
    this.pen.save();
    this.pen.beginPath();
    this.pen.rect(left - EDGE, top - EDGE, right - left + 2 * EDGE, bottom - top + 2 * EDGE);
    this.pen.clip();
    work();
    this.pen.restore();
  }

  band(values, lower, upper) {
    const { pen } = this;
    pen.fillStyle = colours.band;
    pen.beginPath();
    values.forEach((v, i) => pen.lineTo(this.x(v), this.y(upper[i])));
    for (let i = values.length - 1; i >= 0; i--) pen.lineTo(this.x(values[i]), this.y(lower[i]));
    pen.fill();
  }

  line(values, heights, { tint = "accent", width = 2, dash = [] } = {}) {
    const { pen } = this;
    pen.lineWidth = width;
    pen.setLineDash(dash);
    this.#stroke(colours[tint], values.map((v, i) => [this.x(v), this.y(heights[i])]));
    pen.setLineDash([]);
  }

  // Dots with an opacity each, of a few shades, so that all of a shade are painted at once.
  dots(values, heights, opacity, { tint = "ink", radius = 2.2 } = {}) {
    const { pen } = this, shades = Array.from({ length: SHADES + 1 }, () => []);
    for (let i = 0; i < values.length; i++) {
      if (values[i] !== null && heights[i] !== null) shades[Math.round(SHADES * opacity[i])].push(i);
    }
    pen.fillStyle = colours[tint];
    shades.forEach((members, shade) => {
      if (!members.length) return;
      pen.globalAlpha = shade / SHADES;
      pen.beginPath();
      for (const i of members) {
        const x = this.x(values[i]), y = this.y(heights[i]);
        pen.moveTo(x + radius, y);
        pen.arc(x, y, radius, 0, 2 * Math.PI);
      }
      pen.fill();
    });
    pen.globalAlpha = 1;
  }

  // An interval as an upright bar with its mean.
  bar(v, { mean, lower, upper }, { tint = "accent", width = 1.6 } = {}) {
    const x = this.x(v), { pen } = this;
    pen.lineWidth = width;
    this.#stroke(colours[tint], [[x, this.y(lower)], [x, this.y(upper)]]);
    for (const end of [lower, upper]) this.#stroke(colours[tint], [[x - 4, this.y(end)], [x + 4, this.y(end)]]);
    pen.fillStyle = colours[tint];
    pen.beginPath();
    pen.arc(x, this.y(mean), 4, 0, 2 * Math.PI);
    pen.fill();
  }

  upright(v, { tint = "signal", dash = [] } = {}) {
    const x = this.x(v);
    this.pen.lineWidth = 1.2;
    this.pen.setLineDash(dash);
    this.#stroke(colours[tint], [[x, this.box.top], [x, this.box.bottom]]);
    this.pen.setLineDash([]);
  }

  level(h, { tint = "muted", dash = [4, 4] } = {}) {
    const y = this.y(h);
    this.pen.lineWidth = 1.2;
    this.pen.setLineDash(dash);
    this.#stroke(colours[tint], [[this.box.left, y], [this.box.right, y]]);
    this.pen.setLineDash([]);
  }

  // A key of colours to the right of the frame.
  key(scale, colours_) {
    const { pen, box } = this, left = box.right + 14, high = box.bottom - box.top;
    pen.imageSmoothingEnabled = true;
    pen.drawImage(colours_, left, box.top, 12, high);
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    pen.fillStyle = colours.muted;
    for (const v of scale.ticks(Math.max(2, Math.floor(high / 40)))) pen.fillText(scale.text(v), left + 18, box.bottom - scale.unit(v) * high);
  }

  // Room that the widest of some texts takes.
  room(texts) {
    return Math.max(...texts.map((text) => this.pen.measureText(text).width), 0);
  }
}

function cut(pen, text, room) {
  if (pen.measureText(text).width <= room) return text;
  let kept = text;
  while (kept.length > 1 && pen.measureText(kept + "…").width > room) kept = kept.slice(0, -1);
  return kept + "…";
}
