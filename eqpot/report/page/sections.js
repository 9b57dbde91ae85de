// The sections of the page, each from its part of the report to elements, or nothing.

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
        el("span", { class: `word ${check.status} small` }, check.status)),
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

function fineTuning(report) {
  const start = report.fine_tuning;
  if (!start) return null;
  const listed = (values, show) => Object.entries(values).map(([name, value]) =>
    `${name} ${show(value)}`).join(", ") || "none";
  const units = { energy: "eV/atom", forces: "eV/Å", stress: "eV/Å³" };
  const after = report.errors.validation ?? {};
  const rows = Object.entries(start.step0_errors).filter(([, entry]) => entry?.rmse !== undefined)
    .map(([label, entry]) => [label, figures(entry.rmse),
      after[label] ? figures(after[label].rmse) : "", entry.unit]);
  return section("fine-tuning", "Fine-tuning",
    table(["start", "value"], [
      ["potential", start.potential],
      ["SHA-256", el("span", { class: "hash" }, start.file_sha256)],
      ["weights that learn", count(start.n_weights_that_learn)],
      ["shift of E0 / eV", listed(start.reference_energy_shifts, (x) => figures(x, 4))],
      ["new elements, as copies of", listed(start.copied_elements, (symbol) => symbol)],
      ["replayed frames", count(start.n_replay_frames)],
      ["largest difference from it before the first step",
        listed(start.step0_max_differences, figures) + ` (${Object.values(units).join(", ")})`]]),
    caption("Errors on the validation frames before the first step and at the end:"),
    table(["label", "#before: RMSE", "#after: RMSE", "unit"], rows));
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
