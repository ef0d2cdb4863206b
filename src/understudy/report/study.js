(() => {
  const { data, at, paper, plain, short, labelled, color, axis, line, padded, draw } = Drawing;
  const shown = { outcome: 0, other: Math.min(1, data.outcomes.length - 1) };
  const trials = data.trials;
  const outcome = () => data.outcomes[shown.outcome];
  const values = () => trials.values[shown.outcome];
  const where = (keep) => trials.number.map((_, i) => i).filter(keep);
  const pick = (list, indices) => indices.map((i) => list[i]);
  const best = trials.shown.find((i) => trials.feasible[i]);

  const about = (i) => {
    const said = data.outcomes.map((o, j) => plain(o.name) + " " + Number(trials.values[j][i]).toPrecision(5));
    return "trial " + trials.number[i] + (trials.failed[i] ? ": failed" : "<br>" + said.join("<br>"));
  };
  const dots = (x, y, indices, marker) => ({
    type: "scatter", mode: "markers", x: pick(x, indices), y: pick(y, indices),
    text: indices.map(about), hovertemplate: "%{text}<extra></extra>", marker,
  });

  // -- history --------------------------------------------------------------------------------

  function history() {
    const y = values(), sign = outcome().sign;
    const done = where((i) => !trials.failed[i] && y[i] !== null);
    const failed = where((i) => trials.failed[i]);
    const range = done.length ? padded(pick(y, done)) : [0, 1];
    const traces = [
      dots(trials.number, y, done.filter((i) => trials.feasible[i]), { color: color("accent"), size: 7 }),
      dots(trials.number, y, done.filter((i) => !trials.feasible[i]), {
        color: color("accent"), symbol: "circle-open", size: 7,
      }),
      dots(trials.number, trials.number.map(() => range[0]), failed, { color: color("signal"), symbol: "x", size: 7 }),
    ];
    if (sign !== 0) {
      let so_far = null;
      const line = done.map((i) => {
        if (trials.feasible[i] && (so_far === null || sign * (y[i] - so_far) > 0)) so_far = y[i];
        return so_far;
      });
      traces.push({
        type: "scatter", mode: "lines", x: pick(trials.number, done), y: line, hoverinfo: "skip",
        line: { shape: "hv", color: color("signal"), width: 2 },
      });
    }
    const limits = (data.limits[outcome().name] || []).filter((v) => v !== null);
    draw("history", traces, {
      height: paper.printing ? 260 : 340,
      xaxis: axis("trial"),
      yaxis: axis(short(outcome().name, 40), { range }),
      shapes: limits.map((v) => line({ xref: "paper", x0: 0, x1: 1, y0: v, y1: v })),
    }, limits.length ? "Dashed: the bounds of the constraint." : "", outcome().name);
  }

  // -- Pareto front ---------------------------------------------------------------------------

  function front() {
    if (!at("front")) return;
    const last = data.outcomes.filter((o) => o.sign !== 0).length - 1;
    const a = Math.min(shown.outcome, last), b = shown.other === a ? (a + 1) % (last + 1) : shown.other;
    const x = trials.values[a], y = trials.values[b];
    const rest = where((i) => !trials.failed[i] && !trials.front[i]);
    const kept = where((i) => trials.front[i]);
    const names = [a, b].map((j) => data.outcomes[j].name);
    draw("front", [
      dots(x, y, rest.filter((i) => trials.feasible[i]), { color: color("accent-soft"), size: 7 }),
      dots(x, y, rest.filter((i) => !trials.feasible[i]), { color: color("accent-soft"), symbol: "circle-open", size: 7 }),
      dots(x, y, kept, { color: color("signal"), symbol: "diamond", size: 9 }),
    ], {
      height: paper.printing ? 300 : 400,
      xaxis: axis(short(names[0], 40)), yaxis: axis(short(names[1], 40)),
    }, kept.length + " trials on the front.", names.join(" and "));
  }

  // -- parallel coordinates -------------------------------------------------------------------

  const SHADES = 6;
  function parallel() {
    const ranges = trials.values.map((v) => {
      const known = pick(v, trials.shown).filter((value) => value !== null);
      return [Math.min(...known), Math.max(...known)];
    });
    const scaled = trials.values.map((v, j) =>
      v.map((value) => (value === null ? null : (value - ranges[j][0]) / (ranges[j][1] - ranges[j][0] || 1))));
    const columns = trials.unit.concat(scaled);
    const sign = outcome().sign || -1;
    const ranked = trials.shown.slice().sort((i, k) => sign * (values()[i] - values()[k]));
    const groups = Array.from({ length: SHADES }, () => []);
    ranked.forEach((i, r) => groups[Math.min(SHADES - 1, Math.floor((r * SHADES) / ranked.length))].push(i));
    const lines = (indices, style) => ({
      type: "scatter", mode: "lines", hoverinfo: "skip", connectgaps: false,
      x: indices.flatMap(() => columns.map((_, k) => k).concat([null])),
      y: indices.flatMap((i) => columns.map((c) => c[i]).concat([null])),
      line: style,
    });
    const traces = groups.map((indices, g) => ({
      ...lines(indices, { color: color("accent"), width: 1.2 }), opacity: 0.12 + (0.7 * g) / (SHADES - 1),
    }));
    if (best !== undefined) traces.push(lines([best], { color: color("signal"), width: 2.6 }));
    const narrow = at("parallel").clientWidth / columns.length;
    const most = Math.max(4, Math.floor(narrow / 7));
    const digits = (v) => (v === null ? "" : String(Number(v.toPrecision(3))));
    const names = data.inputs.map((input) => labelled(input, most)).concat(data.outcomes.map((o) => short(o.name, most)));
    const input = (i, end) => {
      const choices = i.choices, name = end ? choices[choices.length - 1] : choices[0];
      return i.categorical ? short(name, most) : digits(i.range[end]);
    };
    const labels = (end) => data.inputs.map((i) => input(i, end)).concat(ranges.map((r) => digits(r[end])));
    const text = (words, y, anchor) => words.map((word, k) => ({
      x: k, y, text: word, showarrow: false, yanchor: anchor, font: { size: 11, color: color("muted") },
    }));
    draw("parallel", traces, {
      height: paper.printing ? 300 : 400,
      xaxis: axis("", {
        tickvals: columns.map((_, k) => k), ticktext: names, range: [-0.4, columns.length - 0.6],
        gridcolor: color("line"), ticks: "",
      }),
      yaxis: axis("", { range: [-0.12, 1.12], showticklabels: false, showgrid: false, ticks: "" }),
      annotations: text(labels(0), -0.02, "top").concat(text(labels(1), 1.02, "bottom")),
    }, ranked.length < trials.failed.filter((f) => !f).length ? "The " + ranked.length + " best trials." : "", outcome().name);
  }

  // -- what the trials teach ------------------------------------------------------------------

  function learnt() {
    if (!at("slices")) return;
    const curves = data.slices.filter((curve) => curve.target === shown.outcome);
    const known = curves.length > 0;
    for (const id of ["slices", "sensitivity"]) at("figure-" + id).hidden = !known;
    if (!known) return;
    const all = data.inputs.length;
    const words = "The " + curves.length + " most influential of " + all + " inputs.";
    Drawing.slices(curves, curves.length < all ? words : "", outcome().name);
    Drawing.sensitivity(shown.outcome, outcome().name);
  }

  function drawAll() {
    if (!at("history")) return;
    history();
    front();
    parallel();
    learnt();
  }
  for (const name of Object.keys(shown)) {
    if (!at(name)) continue;
    at(name).addEventListener("change", (event) => {
      shown[name] = Number(event.target.value);
      drawAll();
    });
  }
  Drawing.show(drawAll);
})();
