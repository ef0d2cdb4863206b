(() => {
  const { data, at, color, axis, line, padded, draw } = Drawing;
  const heat = [[0, "#0d2550"], [0.25, "#1f6f8b"], [0.5, "#6fb98f"], [0.75, "#f2c14e"], [1, "#fdf3d0"]];

  function field(id, low, high) {
    const side = Math.min(at(id).clientWidth, 460);
    const [x, y] = data.axes;
    draw(id, [
      { type: "heatmap", x, y, z: data[id], zmin: low, zmax: high, colorscale: heat, hovertemplate: "(%{x:.3g}, %{y:.3g}): %{z:.4g}<extra></extra>" },
      { type: "scatter", mode: "markers", ...data.sensors, hoverinfo: "skip", marker: { color: color("signal"), size: 4 } },
    ], {
      height: side, margin: { l: 50, r: 10, t: 8, b: 46 }, xaxis: axis("x", { range: [0, 1], constrain: "domain" }),
      yaxis: axis("y", { range: [0, 1], scaleanchor: "x", constrain: "domain" }),
    }, "");
  }

  function readings() {
    const { measured, predicted, predicted_sd } = data;
    const range = padded([...measured, ...predicted]);
    draw("readings", [{
      type: "scatter", mode: "markers", x: measured, y: predicted, marker: { color: color("accent"), size: 6 },
      error_y: { type: "data", array: predicted_sd, thickness: 1, width: 0 }, hovertemplate: "measured %{x:.4g}, predicted %{y:.4g}<extra></extra>",
    }], {
      height: 380, margin: { l: 62, r: 10, t: 8, b: 46 }, xaxis: axis("measured", { range }), yaxis: axis("predicted", { range }),
      shapes: [line({ x0: range[0], y0: range[0], x1: range[1], y1: range[1] })],
    }, "");
  }

  Drawing.show(() => {
    const [low, high] = data.range;
    field("mean", low, high);
    field("sd", 0, data.sd_most);
    readings();
  });
})();
