// Arrays of an NPZ file as NumPy writes it without compression: a ZIP archive of .npy files.

const END = 0x06054b50, ENTRY = 0x02014b50;
const KINDS = { "<f4": Float32Array, "<f8": Float64Array };

// Arrays by name: { shape, values }, of single or double precision.
export function arrays(buffer) {
  const view = new DataView(buffer), found = {};
  let end = buffer.byteLength - 22;
  while (end >= 0 && view.getUint32(end, true) !== END) end -= 1;
  if (end < 0) throw new Error("the answer is no NPZ file");
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    if (view.getUint32(at, true) !== ENTRY) throw new Error("the answer is no NPZ file");
    const [name, extra, comment] = [28, 30, 32].map((k) => view.getUint16(at + k, true));
    const title = new TextDecoder().decode(new Uint8Array(buffer, at + 46, name)).replace(/\.npy$/, "");
    const start = view.getUint32(at + 42, true);
    const data = start + 30 + view.getUint16(start + 26, true) + view.getUint16(start + 28, true);
    found[title] = array(buffer, data);
    at += 46 + name + extra + comment;
  }
  return found;
}

function array(buffer, at) {
  const view = new DataView(buffer), wide = view.getUint8(at + 6) > 1;
  const length = wide ? view.getUint32(at + 8, true) : view.getUint16(at + 8, true), head = at + (wide ? 12 : 10);
  const text = new TextDecoder("latin1").decode(new Uint8Array(buffer, head, length));
  const kind = KINDS[/'descr': '([^']+)'/.exec(text)?.[1]];
  const shape = /'shape': \(([^)]*)\)/.exec(text)?.[1].split(",").filter((part) => part.trim()).map(Number);
  if (!kind || !shape || /'fortran_order': True/.test(text)) throw new Error("the answer holds an array of another kind");
  const count = shape.reduce((a, b) => a * b, 1), first = head + length;
  return { shape, values: new kind(buffer.slice(first, first + count * kind.BYTES_PER_ELEMENT)) };
}
