// The sections of the page, each from its part of the report to elements, or nothing.

const WORDS = { good: "good", warning: "look at it", bad: "not good", unknown: "not known" };
const SIGNS = { good: "✓", warning: "!", bad: "✕", unknown: "?" };
const LABELS = { energy: "energy", forces: "forces", stress: "stress" };

function section(id, title, ...content) {
  return el("section", { id }, el("h2", {}, title), content);
}

function note(text) {
  return el("p", { class: "soft small" }, text);
}

// A text that is not broken into lines.
function unbroken(text) {
  return el("span", { class: "unit" }, text);
}

function caption(...content) {
  return el("figcaption", {}, content);
}

function head(report) {
  const [lead, ...rest] = report.headline;
  return el("header", {},
    el("h1", {}, report.name),
    el("p", { class: "lead" }, lead),
    rest.map((text) => el("p", {}, text)),
    el("p", { class: "soft small" }, `${plural(report.training.n_steps, "step")} (`
      + `${figures(report.training.n_epochs)} epochs) in ${duration(report.training.seconds)}; `
      + `report of ${report.created}.`));
}

function tiles(report) {
  const errors = report.errors[report.main_set] ?? {};
  const items = [];
  for (const [label, name] of Object.entries(LABELS)) {
    if (!errors[label]) continue;
    items.push([figures(errors[label].rmse), errors[label].unit,
      `${name} RMSE, ${setName(report.main_set)}; MAE ${figures(errors[label].mae)}`]);
  }
  const checks = report.verification;
  if (checks?.drift) {
    const { steps_per_second: rate, n_atoms: n, timestep } = checks.drift;
    items.push([figures(rate * timestep * 86400e-6), "ns/day",
      `dynamics of ${plural(n, "atom")}, steps of ${timestep} fs, here`]);
  }
  if (checks?.machine.peak_memory_mib) {
    items.push([figures(checks.machine.peak_memory_mib), "MiB", "peak memory, training included"]);
  }
  return el("ul", { class: "tiles" }, items.map(([value, unit, text]) =>
    el("li", {}, el("b", {}, value, " ", el("small", {}, unit)), el("span", {}, text))));
}

function verdicts(report) {
  return [
    el("ul", { class: "checks" }, report.checks.map((check) => el("li", {},
      el("span", { class: `light ${check.status}`, "aria-hidden": "true" }, SIGNS[check.status]),
      el("span", { class: "name" }, check.name, " ",
        el("span", { class: `word ${check.status} small` }, WORDS[check.status])),
      el("span", { class: "message" }, rich(check.message))))),
    report.failure ? el("p", {}, `The potential could not be checked: ${report.failure}`) : null,
  ];
}

function errorTables(report) {
  const sets = Object.entries(report.errors);
  const labels = Object.keys(LABELS);
  const rows = sets.flatMap(([name, errors]) => labels.filter((label) => errors[label]).map(
    (label) => {
      const one = errors[label];
      return [setName(name), LABELS[label], figures(one.rmse, 4), figures(one.mae, 4),
        figures(one.max, 4), one.unit, count(one.n)];
    }));
  return section("errors", "Errors",
    table(["set", "label", "#RMSE", "#MAE", "#largest", "unit", "#values"], rows),
    sets.length < report.n_sets
      ? note(`The first ${sets.length} of ${count(report.n_sets)} sets.`) : null,
    groupTable(sets, "By element", "element", "by_element"),
    groupTable(sets, "By configuration type", "configuration type", "by_config_type"));
}

// RMSE and MAE of each group, a column for each set.
function groupTable(sets, title, noun, by) {
  const shown = sets.filter(([, errors]) =>
    Object.keys(LABELS).some((label) => errors[label]?.[by]));
  const rows = [];
  for (const label of Object.keys(LABELS)) {
    const names = new Set(shown.flatMap(([, errors]) => Object.keys(errors[label]?.[by] ?? {})));
    for (const name of names) {
      const cells = shown.map(([, errors]) => errors[label]?.[by]?.[name]);
      rows.push([name, LABELS[label], ...cells.map((one) =>
        one ? `${figures(one.rmse)} / ${figures(one.mae)}` : "–"),
      cells.find(Boolean).unit]);
    }
  }
  if (rows.length === 0) return null;
  return el("details", { open: rows.length <= 16 ? "" : null },
    el("summary", {}, title, el("span", { class: "soft" }, ", RMSE / MAE")),
    table([noun, "label", ...shown.map(([name]) => `#${setName(name)}`), "unit"], rows));
}

function learningCurves(report) {
  const { history, events } = report;
  if (!history.epoch?.length) return null;
  const epochOf = (step) => {
    const last = history.step.length - 1;
    return step * (history.epoch[last] / Math.max(1, history.step[last]));
  };
  const marks = events.map((event) => ({ x: epochOf(event.step ?? 0) }));
  const panels = [
    ["forces_rmse", "forces RMSE / meV/Å", 1e3, "meV/Å"],
    ["energy_rmse", "energy RMSE / meV/atom", 1e3, "meV/atom"],
    ["virial_rmse", "virial RMSE / meV/atom", 1e3, "meV/atom"],
    ["train_loss", "training loss", 1, ""],
  ].filter(([name]) => history[name]?.some((value) => value !== null));
  const plots = panels.map(([name, yLabel, factor, unit], which) => {
    const y = history[name].map((value) => value === null ? null : factor * value);
    const { root } = linePlot({ x: history.epoch, series: [{ y, color: which }],
      xLabel: "epoch", yLabel, logY: true, marks, size: sizeFor(panels.length),
      tell: (_, index) => `epoch ${figures(history.epoch[index])}, step `
        + `${count(history.step[index])}\n${figures(y[index], 4)} ${unit}\nlearning rate `
        + `${figures(history.learning_rate?.[index])}` });
    return el("figure", {}, root);
  });
  const list = events.length === 0 ? null : [
    el("h3", {}, "Events"),
    table(["#step", "kind", "what happened"],
      events.map((event) => [count(event.step ?? 0), event.kind, event.message])),
    report.n_events > events.length
      ? note(`The first ${events.length} of ${count(report.n_events)} events.`) : null,
  ];
  return section("learning", "Learning curves",
    note("Errors on the validation set during the training"
      + `${events.length ? "; dashed lines mark events" : ""}. Point at a curve to read it.`),
    el("div", { class: panels.length % 2 ? "plots" : "plots wide" }, plots), list);
}

// Parity plots and histograms, with the colours and filters that they share.
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

function worstFrames(report) {
  if (report.worst.length === 0) return null;
  const canvas = el("canvas", { tabindex: "0", role: "img",
    "aria-label": "Structure; turn it with the pointer or the arrow keys" });
  const facts = el("div", {});
  const viewer = new Viewer(canvas, report.atoms);
  const frames = report.worst;
  const rows = frames.map((frame, index) => el("tr", { class: "choice", tabindex: "0",
    onclick: () => choose(index),
    onkeydown: (event) => { if (event.key === "Enter") choose(index); } },
  el("td", { class: "long" }, frame.source), el("td", { class: "text" }, setName(frame.set)),
  el("td", { class: "text" }, frame.formula),
  el("td", { class: "text" }, frame.config_type || "–"),
  el("td", { class: "number" }, figures(frame.forces?.max)),
  el("td", { class: "number" }, figures(frame.energy?.error)),
  el("td", { class: "text" }, frame.worst_by.join(", "))));
  const choose = (index) => {
    rows.forEach((row, other) => row.classList.toggle("chosen", other === index));
    viewer.show(frames[index]);
    facts.replaceChildren(...describeFrame(frames[index], report));
  };
  const arrows = el("select", { onchange: (event) => {
    viewer.arrows = event.target.value;
    viewer.draw();
  } }, [["error", "force error"], ["reference", "reference force"],
    ["predicted", "predicted force"], ["none", "none"]].map(
    ([value, text]) => el("option", { value }, text)));
  const button = (text, label, action) =>
    el("button", { type: "button", "aria-label": label, onclick: action }, text);
  choose(0);
  return section("worst", "Worst frames",
    note("The frames of the largest errors, by the worst atom's force and by energy. Often it is "
      + "the reference that is wrong: look at it before more data are computed."),
    el("div", { class: "viewer" },
      el("div", {}, canvas, el("div", { class: "controls" },
        el("label", {}, "Arrows ", arrows),
        button("+", "larger", () => viewer.magnify(1.25)),
        button("−", "smaller", () => viewer.magnify(0.8)),
        button("reset", "reset the view", () => { viewer.reset(); viewer.draw(); }))),
      facts),
    el("div", { class: "scroll tall" }, el("table", {},
      el("thead", {}, el("tr", {}, el("th", {}, "frame"), el("th", {}, "set"),
        el("th", {}, "formula"),
        el("th", {}, "configuration type"),
        el("th", { class: "number" }, "worst force ", unbroken("error / meV/Å")),
        el("th", { class: "number" }, "energy ", unbroken("error / meV/atom")),
        el("th", {}, "listed by"))),
      el("tbody", {}, rows))));
}

function describeFrame(frame, report) {
  const { energy, forces, shown } = frame;
  const rows = [["atoms", count(frame.n_atoms), ""]];
  if (energy) {
    rows.push(["reference energy", minus(energy.reference.toFixed(4)), "eV"],
      ["predicted energy", energy.predicted === null ? "–" : minus(energy.predicted.toFixed(4)),
        "eV"], ["energy error", figures(energy.error), "meV/atom"]);
  }
  if (forces) {
    const place = shown ? shown.indexOf(forces.atom) : forces.atom;
    const { symbol } = report.atoms[frame.atomic_numbers[place]];
    rows.push(["force RMSE", figures(forces.rmse), "meV/Å"],
      [`worst force error, ${symbol}, atom ${forces.atom}`, figures(forces.max), "meV/Å"]);
    const vector = (list) => list[place].map((value) => value === null ? "–"
      : minus(value.toFixed(3))).join(", ");
    rows.push(["its reference force", vector(frame.reference_forces), "eV/Å"],
      ["its predicted force", vector(frame.predicted_forces), "eV/Å"]);
  }
  return [
    el("h3", {}, `${frame.formula}: ${frame.source}`),
    table(["", "#", ""], rows),
    shown ? note(`${count(shown.length)} of ${count(frame.n_atoms)} atoms are shown, those nearest `
      + "to the worst.") : null,
    note("Turn the structure with the pointer or the arrow keys; point at an atom to read it. The "
      + "longest arrow has always the same length."),
  ].filter(Boolean);
}

function dimers(report) {
  const found = report.verification?.dimers;
  if (!found) return null;
  const grid = el("div", { class: "plots" });
  const show = (curves) => grid.replaceChildren(...curves.map(dimerPlot));
  const few = 24;
  show(found.curves.slice(0, few));
  const more = found.curves.length <= few ? null : el("button", { type: "button",
    onclick: (event) => { show(found.curves); event.target.remove(); } },
  `show all ${found.curves.length} pairs`);
  return section("dimers", "Dimers",
    note("Two atoms alone, from deep overlap to three bond lengths (sums of covalent radii). Going "
      + "inwards the energy should rise to a wall; the force should change its sign once, at the "
      + "bond. The dashed line is the shortest distance of the pair in the training data"
      + ` (${plural(found.n_frames_read, "frame")} read): left of it the potential guesses. A red `
      + "field is a hole, where atoms pushed over the wall fall into each other."
      + (found.n_left_out ? ` ${plural(found.n_left_out, "rarer pair")} left out.` : "")),
    grid, more);
}

function dimerPlot(curve) {
  const { distances, energies, bond_length: bond, hole_distance: hole } = curve;
  const near = energies.filter((_, index) => distances[index] > 0.62 * bond);
  const [low, high] = [Math.min(...near), Math.max(...near)];
  const top = Math.max(high, low + 2);
  const known = curve.shortest_in_data;
  const plot = linePlot({ x: distances, series: [{ y: energies, color: 0 }],
    xLabel: "distance / Å", yLabel: "energy / eV",
    yLimits: [low - 0.1 * (top - low), top + 0.1 * (top - low)],
    marks: known === null ? [] : [{ x: known, kind: "known" }],
    tell: (_, index) => `${figures(distances[index])} Å\n${figures(energies[index], 4)} eV\nforce `
      + `${figures(curve.forces[index])} eV/Å` });
  if (hole !== null) {
    const from = plot.x.at(distances[0]);
    plot.inside.prepend(svg("rect", { class: "hole", x: from, y: SIZE.top,
      width: plot.x.at(hole) - from, height: SIZE.height - SIZE.top - SIZE.bottom }));
  }
  const text = [hole === null ? "no hole"
    : `hole inside ${hole.toFixed(2)} Å behind ${figures(curve.hole_barrier, 2)} eV`,
  plural(curve.n_sign_changes, "sign change"),
  known === null ? "not in the data" : `data from ${known.toFixed(2)} Å`];
  return el("figure", {}, plot.root,
    caption(el("b", {}, `${curve.symbols.join("–")}: `), text.join(", ")));
}

function physics(report) {
  const found = report.verification;
  if (!found) return null;
  const parts = [];
  if (found.symmetry) {
    parts.push(el("h3", {}, `Symmetry, ${plural(found.symmetry.n_frames, "frame")}, float64`),
      table(["operation", "#energy / eV/atom", "#forces / their rms", "#stress / its largest"],
        Object.entries(found.symmetry.operations).map(([name, one]) =>
          [name, figures(one.energy, 2), figures(one.forces, 2), figures(one.stress, 2)])));
  }
  if (found.derivatives) {
    const one = found.derivatives;
    parts.push(el("h3", {}, `Derivatives of the energy, ${plural(one.n_frames, "frame")}, float64`),
      table(["quantity", "#largest difference"], [
        ["forces along random directions / their rms", figures(one.forces, 2)],
        ["sum of all forces / their rms", figures(one.net_force, 2)],
        ["stress / its largest component", figures(one.stress, 2)]]));
  }
  const agreements = [["float32 and float64", found.precision],
    ["export and potential", found.export]].filter(([, one]) => one);
  if (agreements.length) {
    parts.push(el("h3", {}, "Agreement"),
      table(["between", "#frames", "#energy / eV/atom", "#forces / their rms"],
        agreements.map(([name, one]) =>
          [name, count(one.n_frames), figures(one.energy, 2), figures(one.forces, 2)])));
  }
  if (found.drift) parts.push(...driftPlots(found.drift));
  return section("physics", "Laws of physics",
    note("What must hold for any potential, measured on validation frames."), parts);
}

function driftPlots(drift) {
  const time = drift.times.map((t) => t * 1e-3);
  const plot = (y, yLabel, color) => el("figure", {}, linePlot({ x: time, series: [{ y, color }],
    size: sizeFor(2), xLabel: "time / ps", yLabel, xLimits: [0, Math.max(time[time.length - 1], 1e-3)],
    tell: (_, index) => `${figures(time[index])} ps\n${figures(y[index], 4)} meV/atom` }).root);
  const slope = drift.drift === null ? "" : ` Drift ${figures(drift.drift, 2)} ± `
    + `${figures(drift.drift_error, 1)} meV/atom/ps.`;
  return [
    el("h3", {}, "Dynamics at constant energy"),
    note(`${plural(drift.n_steps, "step")} of ${drift.timestep} fs from ${drift.source} `
      + `(${plural(drift.n_atoms, "atom")}), ${figures(drift.temperature)} K on average.${slope} `
      + `The total energy fluctuates by ${figures(100 * drift.fluctuation_ratio, 2)} % of what the `
      + `kinetic energy does.${drift.ended_by ? ` The run ended ${drift.ended_by}.` : ""}`),
    el("div", { class: "plots wide" }, plot(drift.total, "change of total energy / meV/atom", 0),
      plot(drift.kinetic, "kinetic energy / meV/atom", 1)),
  ];
}

function speed(report) {
  const found = report.verification;
  if (!found) return null;
  const { machine, drift, speed: largest } = found;
  const rows = [];
  const add = (what, n, rate) =>
    rows.push([what, count(n), figures(rate), figures(n * rate), figures(0.0432 * rate)]);
  if (drift) add("dynamics, the calmest validation frame", drift.n_atoms, drift.steps_per_second);
  if (largest) {
    add("single calls, the largest validation frame", largest.n_atoms, largest.steps_per_second);
  }
  const spent = Object.values(found.seconds).reduce((sum, one) => sum + one, 0);
  const gpu = machine.gpu ? [["GPU", machine.gpu], ["peak GPU memory",
    `${figures(machine.peak_gpu_memory_mib)} MiB`]] : [];
  return section("speed", "Speed and memory",
    note(`Through the calculator of ASE in ${machine.dtype} on ${machine.device}; ns/day for steps `
      + "of 0.5 fs. Small systems leave most of a machine idle: atoms × steps/s grows with size."),
    table(["what", "#atoms", "#steps/s", "#atoms × steps/s", "#ns/day"], rows),
    table(["machine", ""], [["processor", machine.processor],
      ["cores, threads used", `${machine.n_cores}, ${machine.n_threads}`],
      ["system", machine.system], ...gpu,
      ["peak memory of the process, training included",
        `${figures(machine.peak_memory_mib)} MiB`],
      ["Python, torch", `${machine.python}, ${machine.torch}`],
      ["time of all these checks", duration(spent)]]));
}

function dataSection(report) {
  const { audit } = report;
  const parts = [];
  if (audit) {
    parts.push(el("h3", {}, "Audit"));
    if (audit.n_findings === 0) parts.push(el("p", {}, "Nothing was found."));
    else {
      parts.push(table(["severity", "finding", "what to do", "#frames", "where"],
        audit.findings.map((finding) => [finding.severity,
          rich(`${finding.check ?? ""}: ${finding.message ?? finding.cause ?? ""}`),
          rich(finding.remedy ?? ""), count(finding.n_frames ?? 0), (finding.frames ?? []).slice(0, 3).join("; ")])));
      if (audit.n_findings > audit.findings.length) {
        parts.push(note(`The gravest ${audit.findings.length} of ${count(audit.n_findings)}.`));
      }
    }
  } else parts.push(el("p", {}, "The data were not audited."));
  parts.push(el("h3", {}, "Files"),
    table(["file", "SHA-256"], Object.entries(report.data).map(([name, hash]) =>
      [name, el("span", { class: "hash" }, hash)])),
    el("h3", {}, "Reference energies"),
    table(["element", "#E0 / eV"], Object.entries(report.reference_energies).map(
      ([symbol, energy]) => [symbol, minus(energy.toFixed(6))])));
  return section("data", "Data", parts);
}

function origin(report) {
  const use = "from eqpot.calculators import ASECalculator\n\n"
    + `atoms.calc = ASECalculator(${JSON.stringify(report.potential)})\n`
    + "print(atoms.get_potential_energy(), atoms.get_forces())";
  return section("use", "Use and origin",
    el("p", {}, "In Python, for a structure of ASE:"), el("pre", {}, use),
    el("details", { open: "" }, el("summary", {}, "Recipe"), el("pre", {}, report.recipe)),
    el("h3", {}, "Versions"), table(["package", "version"], Object.entries(report.versions)));
}
