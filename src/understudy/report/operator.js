(() => {
  const { data, at, short, color, axis, line, padded, legendBelow, draw } = Drawing;
  const heat = [[0, "#0d2550"], [0.25, "#1f6f8b"], [0.5, "#6fb98f"], [0.75, "#f2c14e"], [1, "#fdf3d0"]];
  const signed = [[0, "#2166ac"], [0.5, "#f7f7f7"], [1, "#b2182b"]];

  // Panels of one run, three in a line where there is room.
  function picture(id, { title, panels }) {
    const width = at(id).clientWidth;
    const most = panels.length % 4 === 0 && width > 800 ? 4 : 3;
    const columns = width > 600 ? Math.min(most, panels.length) : 1;
    const lines = Math.ceil(panels.length / columns);
    const cell = width > 600 ? 230 : 220, top = 24, whole = lines * cell + top;
    const traces = [], annotations = [];
    const design = { height: whole, margin: { l: 44, r: 8, t: top, b: 8 } };
    panels.forEach((panel, i) => {
      const k = i === 0 ? "" : String(i + 1);
      const column = i % columns, row = Math.floor(i / columns), gap = 0.07;
      const w = (1 - gap * (columns - 1)) / columns, left = column * (w + gap);
      const high = 1 - (row * cell) / (whole - top), low = Math.max(0, high - (cell - 46) / (whole - top));
      const rows = panel.z.length, columnsOf = panel.z[0].length;
      const over = panel.times;
      design["xaxis" + k] = axis("", { domain: [left, Math.min(1, left + w)], anchor: "y" + k, showticklabels: false, ticks: "", showgrid: false });
      design["yaxis" + k] = axis("", {
        domain: [low, high], anchor: "x" + k, showgrid: false, automargin: false, nticks: 4,
        showticklabels: Boolean(over) && column === 0, ...((!over || column > 0) && { ticks: "" }),
      });
      traces.push({
        type: "heatmap", z: panel.z, xaxis: "x" + k, yaxis: "y" + k, zmin: panel.low, zmax: panel.high,
        colorscale: panel.signed ? signed : heat, showscale: false, hovertemplate: "%{z:.4g}<extra></extra>",
        ...(over && rows > 1 && { y0: over[0], dy: (over[1] - over[0]) / (rows - 1) }),
        ...(columnsOf > 1 && { x0: 0, dx: 1 }),
      });
      const limits = " [" + panel.low.toPrecision(2) + ", " + panel.high.toPrecision(2) + "]";
      annotations.push({
        text: short(panel.title, Math.max(12, Math.floor((w * width) / 7) - limits.length)) + limits, showarrow: false, xref: "paper", yref: "paper", x: left, y: high,
        xanchor: "left", yanchor: "bottom", font: { size: 12 },
      });
    });
    draw(id, traces, { ...design, annotations }, "", title);
  }

  const curve = (x, y, name, style) => ({
    type: "scatter", mode: "lines", x, y, name, hovertemplate: "%{x:.4g}: %{y:.4g}<extra></extra>",
    line: { color: color("accent"), width: 2, ...style },
  });
  const dashed = () => ({ color: color("muted"), dash: "dash", width: 1.6 });
  const two = { height: 320, showlegend: true, legend: legendBelow, margin: { l: 60, r: 14, t: 34, b: 46 } };

  function growth() {
    const { times, nrmse, persistence } = data;
    draw("growth", [curve(times, nrmse, "operator"), curve(times, persistence, "no change", dashed())], {
      ...two, xaxis: axis("time"), yaxis: axis("normalised error", { type: "log" }),
    }, "");
  }
  function correlation() {
    const { times, threshold } = data;
    draw("correlation", [curve(times, data.correlation, "correlation")], {
      height: 300, xaxis: axis("time"), yaxis: axis("correlation", { range: [Math.min(0, ...data.correlation), 1.02] }),
      shapes: [line({ x0: times[0], x1: times[times.length - 1], y0: threshold, y1: threshold })],
    }, "");
  }
  function spectrum() {
    const of = (name) => data.spectrum[name].map((v) => (v > 0 ? v : null));
    const x = data.spectrum.true.map((_, k) => k);
    draw("spectrum", [curve(x, of("true"), "true", dashed()), curve(x, of("predicted"), "predicted")], {
      ...two, xaxis: axis("wave number"), yaxis: axis("amplitude", { type: "log", exponentformat: "power" }),
    }, "");
  }
  function horizon() {
    const range = padded([0, data.end]);
    draw("horizon", [{
      type: "scatter", mode: "markers", x: data.believed, y: data.horizon, marker: { color: color("accent"), size: 7, opacity: 0.7 },
      hovertemplate: "rollouts agree to %{x:.4g}, right to %{y:.4g}<extra></extra>",
    }], {
      height: 380, xaxis: axis("time for which its rollouts agree", { range }), yaxis: axis("time for which it is right", { range }),
      shapes: [line({ x0: 0, y0: 0, x1: data.end, y1: data.end })],
    }, "");
  }
  function errors() {
    draw("errors", [{ type: "histogram", x: data.errors, marker: { color: color("accent") }, hovertemplate: "%{x}: %{y}<extra></extra>" }], {
      height: 280, xaxis: axis("relative error", { rangemode: "tozero" }), yaxis: axis("runs"), bargap: 0.04,
    }, "");
  }
  function training() {
    draw("training", [curve(data.curve.x, data.curve.y, "score")], {
      height: 280, xaxis: axis("seconds"), yaxis: axis("validation score", { type: "log" }),
    }, "");
  }
  Drawing.show(() => {
    data.pictures.forEach((run, k) => picture("picture-" + k, run));
    [0, 1, 2].slice(data.pictures.length).forEach((k) => at("figure-picture-" + k)?.remove());
    if (data.errors) errors();
    else { growth(); correlation(); spectrum(); }
    if (data.believed) horizon();
    training();
  });
})();
