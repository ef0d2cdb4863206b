(() => {
  const { data, at, paper, short, color, axis, padded, draw } = Drawing;

  // One panel a curve, all with the same scale.
  function forecasts() {
    const curves = data.curves;
    const width = at("forecasts").clientWidth;
    const most = width > 900 ? 4 : width > 600 ? 3 : width > 380 ? 2 : 1;
    const columns = Math.min(curves.length, most);
    const lines = Math.ceil(curves.length / columns);
    const cell = columns === 1 && lines === 1 ? (paper.printing ? 280 : 380) : 220;
    const gap = width > 600 ? 0.035 : 0.09, top = 8, height = lines * cell + top + 10;
    const inner = height - top - 10;
    const range = padded(curves.flatMap((c) => c.observed.concat(c.median, ...c.bands.slice(-2))));
    const traces = [];
    const design = { height, margin: { l: 56, r: 10, t: top, b: 10 } };
    curves.forEach((curve, i) => {
      const column = i % columns, row = Math.floor(i / columns);
      const n = i === 0 ? "" : String(i + 1);
      const w = (1 - gap * (columns - 1)) / columns, left = column * (w + gap);
      const high = 1 - (row * cell) / inner;
      design["xaxis" + n] = axis(short(curve.name, Math.max(8, Math.floor((w * width - 60) / 8))), {
        domain: [left, Math.min(1, left + w)], anchor: "y" + n, automargin: false, nticks: 5,
      });
      design["yaxis" + n] = axis("", {
        domain: [Math.max(0, high - (cell - 54) / inner), high], anchor: "x" + n, range, nticks: 5,
        automargin: column === 0, showticklabels: column === 0, ...(column > 0 && { ticks: "" }),
      });
      const axes = { xaxis: "x" + n, yaxis: "y" + n };
      for (let k = curve.bands.length - 2; k >= 0; k -= 2) {
        const edge = { type: "scatter", mode: "lines", x: curve.epochs, ...axes, hoverinfo: "skip", line: { width: 0 } };
        traces.push({ ...edge, y: curve.bands[k] });
        traces.push({ ...edge, y: curve.bands[k + 1], fill: "tonexty", fillcolor: color("band") });
      }
      const about = "epoch %{x}<br>%{y:.4g}<extra></extra>";
      traces.push({
        type: "scatter", mode: "lines", x: curve.epochs, y: curve.median, ...axes, hovertemplate: about,
        line: { color: color("accent"), width: 2 },
      });
      traces.push({
        type: "scatter", mode: "markers", x: curve.observed.map((_, k) => k + 1), y: curve.observed, ...axes,
        hovertemplate: about, marker: { color: color("signal"), size: 4 },
      });
    });
    draw("forecasts", traces, design, "");
  }
  Drawing.show(forecasts);
})();
