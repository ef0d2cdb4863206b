"use strict";
// What every report of ours draws with: words, looks, figures, themes, and pages on paper.
const Drawing = (() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const root = document.documentElement;
  const at = (id) => document.getElementById(id);
  const pointer = window.matchMedia("(hover: hover)");
  const paper = { printing: false };

  // -- words ----------------------------------------------------------------------------------

  // Plotly reads text as a little HTML: a name must stay a name.
  const plain = (text) =>
    String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const short = (text, most = 26) => {
    const name = String(text);
    return plain(name.length > most ? name.slice(0, most - 1) + "…" : name);
  };
  const labelled = (input, most) =>
    short(input.name, most) + (input.unit ? " [" + plain(input.unit) + "]" : "");

  // -- looks ----------------------------------------------------------------------------------

  const color = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();
  const axis = (title, more) => ({
    title: { text: title, standoff: 8, font: { size: 13 } },
    gridcolor: color("grid"),
    linecolor: color("line"),
    zeroline: false,
    automargin: true,
    ticks: "outside",
    ticklen: 4,
    tickcolor: color("line"),
    tickfont: { size: 12 },
    ...more,
  });
  const layout = (more) => ({
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, color: color("ink"), size: 13 },
    margin: { l: 56, r: 14, t: 12, b: 46 },
    hoverlabel: { bgcolor: color("paper"), bordercolor: color("line"), font: { color: color("ink") } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: color("muted"), activecolor: color("ink") },
    showlegend: false,
    hovermode: "closest",
    ...more,
  });
  const line = (ends, style) => ({
    type: "line", layer: "below", line: { color: color("muted"), width: 1.2, dash: "dash", ...style }, ...ends,
  });
  const padded = (values) => {
    const known = values.filter((v) => v !== null);
    const low = Math.min(...known), high = Math.max(...known);
    const room = 0.06 * (high - low || Math.abs(high) || 1);
    return [low - room, high + room];
  };
  // Limits of values and, as far as half their span beyond, of their intervals.
  const around = (values, ends) => {
    const known = values.filter((v) => v !== null);
    const low = Math.min(...known), high = Math.max(...known), half = 0.5 * (high - low);
    const near = ends.filter((v) => v !== null).map((v) => Math.min(high + half, Math.max(low - half, v)));
    return padded(known.concat(near));
  };
  // Axis of choices at 0, 1, ...: their names, shortened to the room that each has.
  const choices = (names, width) => {
    const room = Math.floor(width / names.length / 7);
    const every = Math.ceil(4 / Math.max(room, 0.5));
    const ticks = names.map((_, i) => i).filter((i) => i % every === 0);
    return {
      range: [-0.5, names.length - 0.5], tickangle: 0, showgrid: false,
      tickvals: ticks, ticktext: ticks.map((i) => short(names[i], Math.max(4, room * every))),
    };
  };
  const legendBelow = { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } };

  function draw(id, traces, design, words, about = "") {
    const canvas = at(id);
    if (!canvas) return;
    const figure = at("figure-" + id);
    figure.querySelector(".subject").textContent = about;
    figure.querySelector(".count").textContent = words;
    const title = figure.querySelector("strong").textContent;
    canvas.setAttribute("aria-label", [title, about, words].filter(Boolean).join(". "));
    const height = design.height || 360;
    canvas.style.height = height + "px";
    const width = Math.max(240, canvas.clientWidth);
    Plotly.react(canvas, traces, layout({ ...design, height, width }), {
      displaylogo: false,
      displayModeBar: pointer.matches && !paper.printing ? "hover" : false,
      modeBarButtons: [["toImage", "resetScale2d"]],
      toImageButtonOptions: { format: "svg", filename: id },
    });
  }

  // Curves along one input each; where `at` is given, the point that all of them go through.
  function slices(curves, words, about) {
    const width = at("slices").clientWidth;
    const columns = Math.min(curves.length, width > 900 ? 4 : width > 600 ? 3 : width > 380 ? 2 : 1);
    const lines = Math.ceil(curves.length / columns);
    const cell = 210, gapX = width > 600 ? 0.035 : 0.09, top = 8;
    const height = lines * cell + top + 10;
    const traces = [];
    const design = { height, margin: { l: 56, r: 10, t: top, b: 10 } };
    const range = padded(curves.flatMap((curve) => curve.low.concat(curve.high)));
    curves.forEach((curve, i) => {
      const column = i % columns, row = Math.floor(i / columns);
      const n = i === 0 ? "" : String(i + 1);
      const input = data.inputs[curve.input];
      const w = (1 - gapX * (columns - 1)) / columns;
      const left = column * (w + gapX);
      const inner = height - top - 10;
      const high = 1 - (row * cell) / inner;
      const kind = input.categorical
        ? choices(curve.x, w * width - 20)
        : input.log ? { type: "log" } : {};
      design["xaxis" + n] = axis(labelled(input, Math.max(8, Math.floor((w * width - 60) / 8) - input.unit.length)), {
        domain: [left, Math.min(1, left + w)], anchor: "y" + n, automargin: false, nticks: 5, ...kind,
      });
      design["yaxis" + n] = axis("", {
        domain: [Math.max(0, high - (cell - 54) / inner), high], anchor: "x" + n, range, nticks: 5,
        automargin: column === 0, showticklabels: column === 0, ...(column > 0 && { ticks: "" }),
      });
      const axes = { xaxis: "x" + n, yaxis: "y" + n };
      const x = input.categorical ? curve.x.map((_, k) => k) : curve.x;
      const about = (input.categorical ? "%{text}" : "%{x}") + "<br>%{y:.4g}<extra></extra>";
      if (input.categorical) {
        traces.push({
          type: "scatter", mode: "markers", x, y: curve.mean, ...axes, hovertemplate: about,
          text: curve.x.map((v) => short(v)),
          marker: { color: color("accent"), size: 8 },
          error_y: {
            type: "data", symmetric: false, color: color("accent"), thickness: 1.4, width: 4,
            array: curve.high.map((v, k) => v - curve.mean[k]), arrayminus: curve.low.map((v, k) => curve.mean[k] - v),
          },
        });
        mark(traces, curve, axes);
        return;
      }
      const edge = { type: "scatter", mode: "lines", x, ...axes, hoverinfo: "skip", line: { width: 0 } };
      traces.push({ ...edge, y: curve.low });
      traces.push({ ...edge, y: curve.high, fill: "tonexty", fillcolor: color("band") });
      traces.push({
        type: "scatter", mode: "lines", x, y: curve.mean, ...axes, hovertemplate: about,
        line: { color: color("accent"), width: 2 },
      });
      mark(traces, curve, axes);
    });
    draw("slices", traces, design, words, about);
  }
  function mark(traces, curve, axes) {
    if (!curve.at) return;
    traces.push({
      type: "scatter", mode: "markers", x: [curve.at[0]], y: [curve.at[1]], ...axes,
      hovertemplate: "best trial: %{y:.4g}<extra></extra>",
      marker: { color: color("signal"), symbol: "diamond", size: 9 },
    });
  }

  // Bars of the most influential inputs of one output.
  function sensitivity(which, about) {
    const of = (name) => data.sensitivity[name][which].slice().reverse();
    const inputs = of("inputs").map((i) => data.inputs[i]);
    const bars = (name, tint) => {
      const value = of(name), low = of(name + "_low"), high = of(name + "_high");
      return {
        type: "bar", orientation: "h", name,
        y: inputs.map((_, i) => i),
        x: value,
        customdata: inputs.map((input) => plain(input.name)),
        marker: { color: tint },
        error_x: {
          type: "data", symmetric: false, color: color("ink"), thickness: 1, width: 3,
          array: value.map((v, i) => Math.max(0, high[i] - v)),
          arrayminus: value.map((v, i) => Math.max(0, v - low[i])),
        },
        hovertemplate: "%{customdata}: " + name + " %{x:.3f}<extra></extra>",
      };
    };
    const wide = at("sensitivity").clientWidth > 560 ? 34 : 16;
    draw("sensitivity", [bars("total", color("accent-soft")), bars("first", color("accent"))], {
      height: 110 + 34 * inputs.length,
      barmode: "group", bargap: 0.28, bargroupgap: 0.05,
      showlegend: true, legend: { ...legendBelow, traceorder: "reversed" },
      margin: { l: 56, r: 14, t: 36, b: 46 },
      xaxis: axis("share of the variance", { rangemode: "tozero" }),
      yaxis: axis("", {
        tickvals: inputs.map((_, i) => i), ticktext: inputs.map((input) => short(input.name, wide)),
        showgrid: false, ticks: "",
      }),
    }, inputs.length < data.inputs.length ? "The " + inputs.length + " largest of " + data.inputs.length + " inputs." : "", about);
  }

  // -- the page -------------------------------------------------------------------------------

  // Draw now, and again whenever theme, width or medium change.
  function show(drawAll) {
    const dark = window.matchMedia("(prefers-color-scheme: dark)");
    const button = at("theme");
    function setTheme(name) {
      root.dataset.theme = name;
      button.textContent = name === "dark" ? "Light" : "Dark";
      drawAll();
    }
    button.addEventListener("click", () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"));
    dark.addEventListener("change", (event) => setTheme(event.matches ? "dark" : "light"));

    let width = window.innerWidth, waiting = 0;
    window.addEventListener("resize", () => {
      if (window.innerWidth === width || paper.printing) return;
      width = window.innerWidth;
      clearTimeout(waiting);
      waiting = setTimeout(drawAll, 120);
    });

    // On paper: light, without buttons, and drawn for the width of a page.
    const printed = { main: at("main"), before: "", closed: [] };
    window.addEventListener("beforeprint", () => {
      paper.printing = true;
      printed.closed = [...document.querySelectorAll("details:not([open])")];
      printed.closed.forEach((details) => details.setAttribute("open", ""));
      printed.before = root.dataset.theme;
      printed.main.style.width = "680px";
      setTheme("light");
    });
    window.addEventListener("afterprint", () => {
      paper.printing = false;
      printed.closed.forEach((details) => details.removeAttribute("open"));
      printed.main.style.width = "";
      setTheme(printed.before);
    });
    setTheme(dark.matches ? "dark" : "light");
    root.dataset.drawn = "true";
  }

  return {
    data, at, paper, plain, short, labelled, color, axis, line, padded, around, choices,
    legendBelow, draw, slices, sensitivity, show,
  };
})();
