// Predictions against references: parity plots and histograms, coloured and filtered.

function predictions(report) {
  const sets = [...new Set(report.parity.map((panel) => panel.set))];
  const state = { set: report.main_set, by: report.groups.config_type.length > 1
    ? "config_type" : "element", view: "predicted", hidden: new Set() };
  if (!sets.includes(state.set)) [state.set] = sets;
  const plots = el("div", { class: "plots" });
  const legend = el("div", { class: "legend" });
  const remarks = note("");

  const draw = () => {
    const panels = report.parity.filter((panel) => panel.set === state.set);
    plots.className = panels.length % 2 ? "plots" : "plots wide";
    const size = sizeFor(panels.length);
    plots.replaceChildren(...panels.map((panel) => el("div", {},
      parityPlot(report, panel, state, size), errorHistogram(report, panel, state, size))));
    legend.replaceChildren(...(state.by === "none" ? [] : report.groups[state.by]).map(
      (name, index) => el("button", { type: "button", "aria-pressed": !state.hidden.has(index),
        onclick: () => {
          if (!state.hidden.delete(index)) state.hidden.add(index);
          draw();
        } }, el("i", { class: `g${index}` }), name)));
    const thinned = panels.filter((panel) => panel.n > panel.reference.length);
    remarks.textContent = thinned.length === 0 ? "" : "Of large sets a part is drawn: the largest "
      + "errors, and a random draw of the rest. Histograms and tables count all.";
  };
  const choose = (label, options, key) => el("label", {}, `${label} `, el("select", {
    onchange: (event) => {
      state[key] = event.target.value;
      if (key === "by") state.hidden.clear();
      draw();
    } }, options.map(([value, text]) => {
    const option = el("option", { value }, text);
    option.selected = value === state[key];
    return option;
  })));
  draw();
  return section("predictions", "Predictions against references",
    note("Energies are per atom and less those of the isolated atoms. Histograms show predicted "
      + "less reference; their outermost bins hold all beyond."),
    el("div", { class: "controls" },
      choose("Set", sets.map((name) => [name, setName(name)]), "set"),
      choose("Colour by", [["config_type", "configuration type"], ["element", "element"],
        ["none", "nothing"]], "by"),
      choose("Show", [["predicted", "prediction"], ["error", "error"]], "view")),
    legend, plots, remarks);
}

function colorsOf(panel, state) {
  return state.by === "none" ? null : panel[state.by];
}

function parityPlot(report, panel, state, size) {
  const groups = colorsOf(panel, state);
  const names = groups ? report.groups[state.by] : [];
  const x = panel.reference;
  const y = state.view === "error" ? panel.error
    : x.map((value, index) => value + panel.error[index] / panel.errors_per_unit);
  const both = state.view === "error" ? null : limits(x.concat(y));
  const plot = axes(both ?? limits(x), both ?? limits(y.concat([0])),
    `reference ${LABELS[panel.label]} / ${panel.unit}`,
    state.view === "error" ? `error / ${panel.error_unit}` : `predicted / ${panel.unit}`, { size });
  const line = both ? [both[0], both[0], both[1], both[1]] : [...limits(x)].flatMap((v) => [v, 0]);
  plot.inside.append(svg("path", { class: "guide",
    d: `M${plot.x.at(line[0])},${plot.y.at(line[1])}L${plot.x.at(line[2])},${plot.y.at(line[3])}` }));
  const layers = new Map();
  const places = [];
  const rows = [];
  x.forEach((value, index) => {
    const group = groups ? groups[index] : 0;
    if (groups && state.hidden.has(group)) return;
    const place = [plot.x.at(value), plot.y.at(y[index])];
    places.push(place);
    rows.push(index);
    if (!layers.has(group)) layers.set(group, []);
    layers.get(group).push(place);
  });
  for (const [group, dotsOfGroup] of layers) plot.inside.append(dots(dotsOfGroup, group));
  followPointer(plot.root, plot.inside, places, (shown) => {
    const index = rows[shown];
    const where = panel.sources[index] ?? `frame ${panel.frame[index]} of the set`;
    return `${where}${groups ? `\n${names[groups[index]]}` : ""}\n`
      + `reference ${figures(x[index], 5)} ${panel.unit}\n`
      + `error ${figures(panel.error[index])} ${panel.error_unit}`;
  }, 14);
  const broken = panel.n_not_finite ? `, ${count(panel.n_not_finite)} not finite` : "";
  const drawn = x.length < panel.n ? `${count(x.length)} of ` : "";
  return el("figure", {}, plot.root, caption(el("b", {}, `${LABELS[panel.label]}: `),
    `${drawn}${plural(panel.n, "value")}${broken}`));
}

function errorHistogram(report, panel, state, size) {
  const { histogram } = panel;
  const by = state.by === "none" ? null : histogram[state.by];
  const shown = (by ?? [histogram.all]).map((counts, index) => [counts, index])
    .filter(([counts, index]) => counts.some(Boolean) && !(by && state.hidden.has(index)));
  const largest = Math.max(1, ...shown.flatMap(([counts]) => counts));
  const plot = axes([-histogram.limit, histogram.limit], [0.7, 1.6 * Math.max(2, largest)],
    `error of ${LABELS[panel.label]} / ${panel.error_unit}`, "values", { logY: true, size });
  const zero = plot.x.at(0);
  plot.inside.append(svg("path", { class: "guide",
    d: `M${zero},${SIZE.top}V${SIZE.height - SIZE.bottom}` }));
  for (const [counts, index] of shown) {
    plot.inside.append(outline(plot, counts, histogram.limit, index));
  }
  return el("figure", {}, plot.root, caption(el("b", {}, `${LABELS[panel.label]}: `),
    "errors of all values"));
}
