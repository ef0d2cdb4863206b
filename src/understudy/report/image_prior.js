(() => {
  const { data, at, color, axis, draw } = Drawing;
  const curve = (x, y, style) => ({
    type: "scatter", mode: "lines+markers", x, y, hovertemplate: "%{x:.3g}: %{y:.4g}<extra></extra>",
    line: { color: color("accent"), width: 1.6 }, marker: { size: 4 }, ...style,
  });
  Drawing.show(() => {
    draw("prior", data.prior.map((y) => curve(data.levels, y, { opacity: 0.6 })), {
      height: 340, xaxis: axis("noise"), yaxis: axis("less likely by, nats"),
    }, "");
    if (!data.curve.x.length) { at("figure-training")?.remove(); return; }
    draw("training", [curve(data.curve.x, data.curve.y, { mode: "lines" })], {
      height: 280, xaxis: axis("step"), yaxis: axis("loss", { type: "log" }),
    }, "");
  });
})();
