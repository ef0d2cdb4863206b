(() => {
  const { data, at, short, color, axis, padded, draw } = Drawing;

  // Histograms on the diagonal, pairs below it.
  function corner() {
    const { names, draws, histograms } = data.corner;
    const n = names.length, width = at("corner").clientWidth;
    const side = Math.min(width, n === 1 ? 340 : 760), gap = 0.02;
    const traces = [], design = { height: side, margin: { l: 62, r: 10, t: 8, b: 52 } };
    const w = (1 - gap * (n - 1)) / n;
    const ranges = draws.map((values) => padded(values));
    const letters = Math.max(6, Math.floor((side * w) / 8));
    let id = 0;
    for (let row = 0; row < n; row++) {
      for (let column = 0; column <= row; column++) {
        id += 1;
        const k = id === 1 ? "" : String(id), left = column * (w + gap), top = 1 - row * (w + gap);
        const last = row === n - 1, first = column === 0 && row > 0;
        design["xaxis" + k] = axis(last ? short(names[column], letters) : "", {
          domain: [left, Math.min(1, left + w)], anchor: "y" + k, range: ranges[column], nticks: 4,
          showticklabels: last, automargin: false, ...(!last && { ticks: "" }),
        });
        design["yaxis" + k] = axis(first ? short(names[row], letters) : "", {
          domain: [Math.max(0, top - w), top], anchor: "x" + k, nticks: 4,
          showticklabels: first, automargin: false, ...(!first && { ticks: "" }),
          ...(row === column ? { rangemode: "tozero" } : { range: ranges[row] }),
        });
        const axes = { xaxis: "x" + k, yaxis: "y" + k };
        if (row === column) {
          const { x, count } = histograms[row];
          traces.push({ type: "bar", x, y: count, ...axes, marker: { color: color("accent") }, hovertemplate: "%{x:.4g}: %{y}<extra></extra>" });
        } else {
          traces.push({
            type: "scatter", mode: "markers", x: draws[column], y: draws[row], ...axes, hoverinfo: "skip",
            marker: { color: color("accent"), size: 3, opacity: 0.35 },
          });
        }
      }
    }
    draw("corner", traces, { ...design, bargap: 0 }, "");
  }

  // Two panels an output: values, and what they differ by from the median.
  function predictions() {
    const panels = data.predictions.flatMap((panel) => {
      const less = (name) => panel[name].map((v, j) => v - panel.median[j]);
      const rest = { y: less("y"), lower: less("lower"), upper: less("upper"), median: less("median") };
      return [panel, { ...panel, ...rest, output: panel.output + " - median" }];
    });
    const cell = 250, traces = [], whole = cell * panels.length;
    const design = { height: whole, margin: { l: 70, r: 10, t: 8, b: 46 } };
    panels.forEach((panel, i) => {
      const k = i === 0 ? "" : String(i + 1), high = 1 - i / panels.length;
      design["xaxis" + k] = axis(short(panel.along, 30), { anchor: "y" + k });
      design["yaxis" + k] = axis(short(panel.output, 24), {
        anchor: "x" + k, domain: [high - (cell - 60) / whole, high], automargin: false,
      });
      const order = panel.x.map((_, j) => j).sort((a, b) => panel.x[a] - panel.x[b]);
      const of = (name) => order.map((j) => panel[name][j]);
      const axes = { xaxis: "x" + k, yaxis: "y" + k }, x = of("x");
      const edge = { type: "scatter", mode: "lines", x, ...axes, hoverinfo: "skip", line: { width: 0 } };
      traces.push({ ...edge, y: of("lower") }, { ...edge, y: of("upper"), fill: "tonexty", fillcolor: color("band") });
      const about = "%{x}: %{y:.5g}<extra></extra>";
      traces.push({ type: "scatter", mode: "lines", x, y: of("median"), ...axes, hovertemplate: about, line: { color: color("accent"), width: 2 } });
      traces.push({ type: "scatter", mode: "markers", x, y: of("y"), ...axes, hovertemplate: about, marker: { color: color("signal"), size: 5 } });
    });
    draw("predictions", traces, design, "");
  }
  Drawing.show(() => { corner(); predictions(); });
})();
