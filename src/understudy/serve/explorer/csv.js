// Tables as text: comma, semicolon or tabulator between cells, quotes around cells that need them.

// Heads and rows of a text. Empty lines are passed over; rows know their number in the file.
export function parse(text) {
  const clean = text.replace(/^\ufeff/, "");
  const lines = cells(clean, separator(clean));
  const [heads = [], ...rows] = lines.filter((row) => row.length > 1 || row[0].trim() !== "");
  return { heads: heads.map((head) => head.trim()), rows };
}

// The text of a table.
export function format(heads, rows) {
  return [heads, ...rows].map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
}

function separator(text) {
  const first = text.split(/\r?\n/, 1)[0];
  const count = (mark) => first.split(mark).length;
  return [",", ";", "\t"].reduce((best, mark) => (count(mark) > count(best) ? mark : best));
}

function cells(text, mark) {
  const rows = [];
  let row = [], cell = "", inside = false;
  for (let i = 0; i < text.length; i++) {
    const letter = text[i];
    if (inside) {
      if (letter !== '"') cell += letter;
      else if (text[i + 1] === '"') { cell += '"'; i += 1; }
      else inside = false;
    } else if (letter === '"' && cell === "") inside = true;
    else if (letter === mark) { row.push(cell); cell = ""; }
    else if (letter === "\n") { row.push(cell.replace(/\r$/, "")); rows.push(row); row = []; cell = ""; }
    else cell += letter;
  }
  if (cell !== "" || row.length) rows.push([...row, cell.replace(/\r$/, "")]);
  return rows;
}

// A spreadsheet must not take a cell of text for a formula.
function quoted(cell) {
  if (cell === null || cell === undefined) return "";
  const text = typeof cell === "string" && /^[=+@\t]|^-(?![\d.])/.test(cell) ? "'" + cell : String(cell);
  return /[",\r\n]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
}
