// The worst frames: a view, what is known of the chosen one, and the list to choose from.

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
