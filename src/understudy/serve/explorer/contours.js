// Lines of equal value of a field on a grid (marching squares).

// Pieces of lines [x, y, x, y] in units of cells, of values (rows × columns, row by row) at a level.
export function contour(values, columns, rows, level) {
  const pieces = [];
  for (let r = 0; r + 1 < rows; r++) {
    for (let c = 0; c + 1 < columns; c++) {
      const at = r * columns + c;
      const corners = [values[at], values[at + 1], values[at + columns + 1], values[at + columns]];
      const crossed = crossings(corners, level, c, r);
      for (let k = 0; k + 1 < crossed.length; k += 2) pieces.push([...crossed[k], ...crossed[k + 1]]);
    }
  }
  return pieces;
}

// Where the level crosses the four sides of a cell, clockwise from its lower left corner.
function crossings([a, b, d, e], level, c, r) {
  const found = [];
  const side = (from, to, x, y, dx, dy) => {
    if ((from < level) === (to < level)) return;
    const t = (level - from) / (to - from);
    found.push([x + t * dx, y + t * dy]);
  };
  side(a, b, c, r, 1, 0);
  side(b, d, c + 1, r, 0, 1);
  side(d, e, c + 1, r + 1, -1, 0);
  side(e, a, c, r + 1, 0, -1);
  return found;
}
