(() => {
  const { data, color, axis, legendBelow, draw } = Drawing;
  const curve = (y, name, style) => ({
    type: "scatter", mode: y.length > 1 ? "lines" : "markers", x: y.map((_, k) => k + 1), y, name,
    hovertemplate: "%{x}: %{y:.4g}<extra></extra>", line: { color: color("accent"), width: 2, ...style },
  });

  function convergence() {
    const misfit = { color: color("signal"), dash: "dash", width: 1.8 };
    draw("convergence", [curve(data.residuals, "change of the image"), curve(data.misfits, "misfit of the data", misfit)], {
      height: 340, showlegend: true, legend: legendBelow, margin: { l: 62, r: 14, t: 34, b: 46 },
      xaxis: axis("iteration"), yaxis: axis("share", { type: "log", exponentformat: "power" }),
    }, "");
  }
  Drawing.show(() => {
    convergence();
    if (data.objectives) {
      draw("objective", [curve(data.objectives, "objective")], { height: 300, xaxis: axis("iteration"), yaxis: axis("objective") }, "");
    }
    if (data.curve) {
      draw("curve", [curve(data.curve, "value", { width: 1 })], { height: 260, xaxis: axis("value in order"), yaxis: axis("measured") }, "");
    }
  });
})();
