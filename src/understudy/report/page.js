(() => {
  const { data, at, paper, plain, short, labelled, color, axis, line, around, choices } = Drawing;
  const { legendBelow } = Drawing;
  const shown = { target: 0, split: 0, input: -1 };
  const target = () => data.targets[shown.target];
  const draw = (id, traces, design, words, about = target()) =>
    Drawing.draw(id, traces, design, words, about);

  // -- unseen runs ----------------------------------------------------------------------------

  function unseen() {
    const split = data.splits[shown.split];
    const of = (name) => split[name][shown.target];
    const y = of("y"), mean = of("mean"), low = of("low"), high = of("high");
    const outside = y.map((value, i) => value < low[i] || value > high[i]);
    const missed = outside.filter(Boolean).length;
    const some = y.length < split.whole ? y.length.toLocaleString("en") + " of " : "";
    const words =
      some + split.whole.toLocaleString("en") + " rows shown; " + missed +
      (missed === 1 ? " lies" : " lie") + " outside (diamonds).";
    return { split, y, mean, low, high, outside, words };
  }

  // Two traces: rows inside and rows outside their interval, told apart by shape and by colour.
  function points(rows, x, y, bars, hover) {
    return [false, true].map((out) => {
      const pick = (values) => values.filter((_, i) => rows.outside[i] === out);
      const tint = color(out ? "signal" : "accent");
      const many = rows.y.length > 400;
      return {
        type: "scatter",
        mode: "markers",
        name: out ? "outside" : "inside",
        x: pick(x),
        y: pick(y),
        customdata: pick(rows.split.rows.map((row, i) => [row, rows.y[i], rows.mean[i]])),
        hovertemplate: hover + "<extra></extra>",
        marker: {
          color: tint, symbol: out ? "diamond" : "circle", size: many ? 5 : 6.5,
          opacity: out ? 0.95 : many ? 0.55 : 0.75,
        },
        ...(bars && {
          error_y: {
            type: "data", symmetric: false, color: tint, thickness: many ? 0.5 : 0.9, width: 0,
            array: pick(bars.up), arrayminus: pick(bars.down),
          },
        }),
      };
    });
  }
  const hover = "row %{customdata[0]}<br>observed %{customdata[1]}<br>predicted %{customdata[2]}";

  function parity(rows) {
    const range = around(rows.y.concat(rows.mean), rows.low.concat(rows.high));
    const bars = {
      up: rows.high.map((v, i) => Math.max(0, v - rows.mean[i])),
      down: rows.low.map((v, i) => Math.max(0, rows.mean[i] - v)),
    };
    draw("parity", points(rows, rows.y, rows.mean, bars, hover), {
      height: paper.printing ? 290 : 380,
      xaxis: axis("observed", { range }),
      yaxis: axis("predicted", { range }),
      shapes: [line({ x0: range[0], y0: range[0], x1: range[1], y1: range[1] })],
    }, rows.words);
  }

  function residuals(rows) {
    const input = data.inputs[shown.input];
    const known = rows.split.x;
    const x = input && known ? known[shown.input] : rows.mean;
    const residual = rows.y.map((v, i) => v - rows.mean[i]);
    const title = input && known ? labelled(input, 34) : "predicted";
    const named = input && known && input.categorical;
    const names = named ? [...new Set(x.filter((v) => v !== null))].sort() : [];
    const kind = named ? choices(names, at("residuals").clientWidth - 90) : input && known && input.log ? { type: "log" } : {};
    const missing = input && !known ? "The inputs of these rows are not in the file. " : "";
    draw("residuals", points(rows, named ? x.map((v) => (v === null ? null : names.indexOf(v))) : x, residual, null, hover), {
      height: paper.printing ? 290 : 380,
      xaxis: axis(title, kind),
      yaxis: axis("observed − predicted"),
      shapes: [line({ xref: "paper", x0: 0, x1: 1, y0: 0, y1: 0 })],
    }, missing + rows.words);
  }

  function calibration(rows) {
    const curve = rows.split.curve[shown.target];
    const levels = curve.map((_, i) => i / (curve.length - 1));
    const quarters = [0, 0.25, 0.5, 0.75, 1];
    const reach = levels.map((p) => 1.96 * Math.sqrt((p * (1 - p)) / rows.split.whole));
    const area = (values, fill) => ({
      type: "scatter", mode: "lines", x: levels, y: values, hoverinfo: "skip",
      line: { width: 0 }, ...(fill && { fill: "tonexty", fillcolor: color("band") }),
    });
    draw("calibration", [
      area(levels.map((p, i) => Math.max(0, p - reach[i]))),
      area(levels.map((p, i) => Math.min(1, p + reach[i])), true),
      {
        type: "scatter", mode: "lines", x: levels, y: curve,
        line: { color: color("accent"), width: 2.4 },
        hovertemplate: "expected %{x:.0%}<br>observed %{y:.0%}<extra></extra>",
      },
    ], {
      height: paper.printing ? 260 : 340,
      margin: { l: 56, r: 24, t: 12, b: 46 },
      xaxis: axis("expected share", { range: [0, 1], tickformat: ".0%", tickvals: quarters }),
      yaxis: axis("observed share", { range: [0, 1], tickformat: ".0%", tickvals: quarters }),
      shapes: [line({ x0: 0, y0: 0, x1: 1, y1: 1 })],
    }, "");
  }

  // Wilson's interval of a share: no shorter where all or none are inside.
  function wilson(share, n, z = 1.96) {
    const middle = (share + (z * z) / (2 * n)) / (1 + (z * z) / n);
    const half = (z / (1 + (z * z) / n)) * Math.sqrt((share * (1 - share)) / n + (z * z) / (4 * n * n));
    return [middle - half, middle + half];
  }

  function coverage(rows) {
    const levels = [50, 80, 90, 95];
    const found = rows.split.coverage[shown.target].map((pair) => pair[0]);
    const texts = rows.split.coverage[shown.target].map((pair) => pair[1]);
    const reach = found.map((share) => wilson(share, rows.split.whole));
    draw("coverage", [{
      type: "bar", x: levels.map((_, i) => i), y: found, width: 0.5,
      marker: { color: color("accent-soft") },
      error_y: {
        type: "data", symmetric: false, color: color("ink"), thickness: 1.2, width: 5,
        array: found.map((v, i) => reach[i][1] - v), arrayminus: found.map((v, i) => v - reach[i][0]),
      },
      text: texts, textposition: "inside", insidetextanchor: "start", textangle: 0,
      textfont: { color: color("ink") },
      hovertemplate: "%{y:.1%} inside<extra></extra>",
    }], {
      height: paper.printing ? 260 : 340,
      xaxis: axis("interval", { tickvals: levels.map((_, i) => i), ticktext: levels.map((l) => l + " %"), showgrid: false }),
      yaxis: axis("share of rows inside", { range: [0, 1.03], tickformat: ".0%" }),
      shapes: levels.map((level, i) => line(
        { x0: i - 0.36, x1: i + 0.36, y0: level / 100, y1: level / 100, layer: "above" },
        { color: color("signal"), width: 2.4, dash: "solid" })),
    }, "");
  }

  // -- what it has learnt ---------------------------------------------------------------------

  function sensitivity() {
    if (data.sensitivity) Drawing.sensitivity(shown.target, target());
  }

  function overview() {
    if (!data.sensitivity || !at("overview")) return;
    const map = data.sensitivity.map;
    const inputs = map.inputs.slice().reverse().map((i) => data.inputs[i]);
    const total = map.total.slice().reverse();
    const narrow = at("overview").clientWidth < 560;
    const columns = data.targets.map((_, j) => j), rows = inputs.map((_, i) => i);
    const slanted = data.targets.length > (narrow ? 3 : 6);
    const room = at("overview").clientWidth - (narrow ? 170 : 260);
    const every = Math.ceil((14 * columns.length) / room);
    const ticks = columns.filter((j) => j % every === 0);
    draw("overview", [{
      type: "heatmap", x: columns, y: rows,
      z: total.map((row) => row.map((v) => Math.max(0, v))),
      customdata: inputs.map((input) => data.targets.map((name) => [plain(name), plain(input.name)])),
      hovertemplate: "%{customdata[0]}<br>%{customdata[1]}: total %{z:.2f}<extra></extra>",
      zmin: 0, zmax: 1, xgap: 1, ygap: 1,
      colorscale: [[0, color("surface")], [1, color("accent")]],
      colorbar: { thickness: 10, outlinewidth: 0, tickvals: [0, 0.5, 1], len: 0.9 },
    }], {
      height: (slanted ? 150 : 90) + 22 * inputs.length,
      xaxis: axis("", {
        tickvals: ticks, ticktext: ticks.map((j) => short(data.targets[j], 16)),
        tickangle: slanted ? -60 : 0, showgrid: false, ticks: "",
      }),
      yaxis: axis("", {
        tickvals: rows, ticktext: inputs.map((input) => short(input.name, narrow ? 14 : 30)),
        showgrid: false, ticks: "",
      }),
    }, inputs.length < data.inputs.length ? "The " + inputs.length + " most influential of " + data.inputs.length + " inputs." : "", "");
  }

  function slices() {
    const curves = data.slices.filter((curve) => curve.target === shown.target);
    const all = data.inputs.length;
    const ranked = data.sensitivity ? "most influential" : "first";
    const words = "The " + curves.length + " " + ranked + " of " + all + " inputs.";
    Drawing.slices(curves, curves.length < all ? words : "", target());
  }

  // -- the page -------------------------------------------------------------------------------

  function drawUnseen() {
    const rows = unseen();
    parity(rows);
    residuals(rows);
    calibration(rows);
    coverage(rows);
  }
  function drawLearnt() {
    sensitivity();
    slices();
  }
  function drawAll() {
    drawUnseen();
    drawLearnt();
    overview();
  }

  for (const name of ["target", "split", "input"]) {
    at(name).addEventListener("change", (event) => {
      shown[name] = Number(event.target.value);
      if (name === "input") residuals(unseen());
      else drawUnseen();
      if (name === "target") drawLearnt();
    });
  }

  Drawing.show(drawAll);
  if (at("overview")) {
    at("overview").on("plotly_click", (event) => {
      at("target").value = String(event.points[0].x);
      at("target").dispatchEvent(new Event("change"));
    });
  }
})();
