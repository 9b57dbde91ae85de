// Dimers, symmetry, derivatives and dynamics: what must hold for any potential.

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
