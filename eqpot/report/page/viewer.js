// A view of a structure that can be turned: spheres, bonds, cell and arrows on a canvas.

const BOND_REACH = 1.2; // times the sum of the covalent radii

class Viewer {
  constructor(canvas, atoms) {
    this.canvas = canvas;
    this.atoms = atoms; // symbol, colour and radius by atomic number
    this.arrows = "error";
    this.reset();
    this.listen();
    new ResizeObserver(() => this.draw()).observe(canvas);
    for (const query of ["(prefers-color-scheme: dark)", "print"]) {
      matchMedia(query).addEventListener("change", () => this.draw());
    }
  }

  reset() {
    this.turn = multiply(rotation(0, -0.35), rotation(1, 0.5));
    this.zoom = 1;
  }

  show(structure) {
    this.structure = structure;
    const { positions, cell, atomic_numbers: numbers } = structure;
    const corners = cell ? cellCorners(cell) : [];
    const all = positions.concat(corners);
    this.center = [0, 1, 2].map((axis) => {
      const values = all.map((point) => point[axis]);
      return (Math.min(...values) + Math.max(...values)) / 2;
    });
    this.extent = Math.max(1.5, ...all.map((point) => length(minusVector(point, this.center))));
    this.corners = corners;
    this.bonds = findBonds(positions, numbers.map((z) => this.atoms[z].radius));
    this.reset();
    this.draw();
  }

  // The arrows at the atoms, eV/Å.
  vectors() {
    const { reference_forces: reference, predicted_forces: predicted } = this.structure;
    if (!reference || this.arrows === "none") return null;
    if (this.arrows === "reference") return reference;
    if (this.arrows === "predicted") return predicted;
    return predicted.map((force, index) => minusVector(force, reference[index]));
  }

  project(point) {
    const [x, y, z] = apply(this.turn, minusVector(point, this.center));
    const { width, height } = this.canvas.getBoundingClientRect();
    return [width / 2 + x * this.pixels, height / 2 - y * this.pixels, z];
  }

  draw() {
    if (!this.structure) return;
    const { width, height } = this.canvas.getBoundingClientRect();
    if (!width) return;
    const ratio = devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.lineCap = "round";
    this.pixels = (this.zoom * 0.42 * Math.min(width, height)) / this.extent;
    const style = getComputedStyle(document.documentElement);
    this.colors = { ink: style.getPropertyValue("--ink"), line: style.getPropertyValue("--faint"),
      bond: style.getPropertyValue("--soft"), arrow: style.getPropertyValue("--bad") };
    const places = this.structure.positions.map((point) => this.project(point));
    this.places = places;
    const parts = [];
    for (const [a, b] of cellEdges(this.corners)) {
      const ends = [this.project(a), this.project(b)];
      parts.push([(ends[0][2] + ends[1][2]) / 2, () => this.line(context, ends, 1, "line")]);
    }
    for (const [i, j] of this.bonds) {
      const ends = this.bondEnds(i, j);
      const thick = Math.max(1.5, 0.16 * this.pixels);
      parts.push([(ends[0][2] + ends[1][2]) / 2, () => this.line(context, ends, thick, "bond")]);
    }
    places.forEach((place, index) => {
      parts.push([place[2], () => this.sphere(context, place, index)]);
    });
    this.addArrows(context, parts);
    parts.sort((a, b) => a[0] - b[0]).forEach(([, paint]) => paint());
  }

  line(context, [a, b], thick, color) {
    context.strokeStyle = this.colors[color];
    context.lineWidth = thick;
    context.beginPath();
    context.moveTo(a[0], a[1]);
    context.lineTo(b[0], b[1]);
    context.stroke();
  }

  // Of the sphere that is drawn, Å.
  size(index) {
    return 0.18 + 0.32 * this.atoms[this.structure.atomic_numbers[index]].radius;
  }

  radius(index) {
    return Math.max(2.5, this.size(index) * this.pixels);
  }

  // From surface to surface: a bond that began at the centre would be drawn over its sphere.
  bondEnds(i, j) {
    const [a, b] = [this.structure.positions[i], this.structure.positions[j]];
    const along = minusVector(b, a);
    const distance = length(along) || 1;
    const from = (start, reach) =>
      this.project(start.map((value, axis) => value + (reach / distance) * along[axis]));
    return [from(a, 0.9 * this.size(i)), from(b, -0.9 * this.size(j))];
  }

  sphere(context, [x, y], index) {
    const radius = this.radius(index);
    const [r, g, b] = this.atoms[this.structure.atomic_numbers[index]].color;
    const light = context.createRadialGradient(
      x - 0.35 * radius, y - 0.35 * radius, 0.1 * radius, x, y, radius);
    const shade = (part) => `rgb(${[r, g, b].map((c) => Math.round(c * part)).join(",")})`;
    light.addColorStop(0, `rgb(${[r, g, b].map((c) => Math.round(c + 0.6 * (255 - c))).join(",")})`);
    light.addColorStop(0.5, shade(1));
    light.addColorStop(1, shade(0.55));
    context.fillStyle = light;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fill();
  }

  addArrows(context, parts) {
    const vectors = this.vectors();
    if (!vectors) return;
    const longest = Math.max(...vectors.map(length));
    if (!(longest > 0)) return;
    vectors.forEach((vector, index) => {
      const size = length(vector) / longest;
      if (!(size > 0.03)) return;
      const start = this.structure.positions[index];
      const stretch = (1.3 + 0.04 * this.extent) / longest;
      const tip = start.map((value, axis) => value + stretch * vector[axis]);
      const ends = [this.places[index], this.project(tip)];
      // in front of its own atom: an arrow inside of a sphere says nothing
      const depth = Math.max(ends[0][2], ends[1][2]) + 0.01;
      parts.push([depth, () => this.arrow(context, ends)]);
    });
  }

  arrow(context, [a, b]) {
    this.line(context, [a, b], 2.2, "arrow");
    const angle = Math.atan2(b[1] - a[1], b[0] - a[0]);
    const head = Math.min(9, 0.6 * Math.hypot(b[0] - a[0], b[1] - a[1]));
    for (const side of [-0.5, 0.5]) {
      const wing = [b[0] - head * Math.cos(angle + side), b[1] - head * Math.sin(angle + side)];
      this.line(context, [b, wing], 2.2, "arrow");
    }
  }

  listen() {
    const { canvas } = this;
    let last = null;
    canvas.addEventListener("pointerdown", (event) => {
      last = [event.clientX, event.clientY];
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointerup", () => { last = null; });
    canvas.addEventListener("pointercancel", () => { last = null; });
    canvas.addEventListener("pointerleave", () => hint.hide());
    canvas.addEventListener("pointermove", (event) => {
      if (!last) return this.tell(event);
      hint.hide();
      this.rotate(event.clientX - last[0], event.clientY - last[1]);
      last = [event.clientX, event.clientY];
      return undefined;
    });
    canvas.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: [-20, 0], ArrowRight: [20, 0], ArrowUp: [0, -20],
        ArrowDown: [0, 20] };
      if (event.key in steps) this.rotate(...steps[event.key]);
      else if (event.key === "+" || event.key === "-") this.magnify(event.key === "+" ? 1.2 : 1 / 1.2);
      else return;
      event.preventDefault();
    });
  }

  rotate(right, down) {
    this.turn = multiply(multiply(rotation(0, down * 0.01), rotation(1, right * 0.01)), this.turn);
    this.draw();
  }

  magnify(factor) {
    this.zoom = Math.min(12, Math.max(0.4, this.zoom * factor));
    this.draw();
  }

  tell(event) {
    const bounds = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - bounds.left, event.clientY - bounds.top];
    let best = -1;
    (this.places ?? []).forEach((place, index) => {
      const inside = Math.hypot(place[0] - x, place[1] - y) < this.radius(index) + 2;
      if (inside && (best < 0 || place[2] > this.places[best][2])) best = index;
    });
    if (best < 0) hint.hide();
    else hint.show(event, this.describe(best));
  }

  describe(index) {
    const { atomic_numbers: numbers, reference_forces: reference, predicted_forces: predicted,
      shown } = this.structure;
    const lines = [`${this.atoms[numbers[index]].symbol}, atom ${shown ? shown[index] : index}`];
    if (reference) {
      const text = (vector) => vector.map((value) => value === null ? "–"
        : minus(value.toFixed(3))).join("  ");
      const error = 1e3 * length(minusVector(predicted[index], reference[index]));
      lines.push(`reference  ${text(reference[index])} eV/Å`,
        `predicted  ${text(predicted[index])} eV/Å`, `error  ${figures(error)} meV/Å`);
    }
    return lines.join("\n");
  }
}

function minusVector(a, b) {
  return [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
}

function length(vector) {
  return Math.hypot(...vector);
}

function apply(matrix, vector) {
  return matrix.map((row) => row[0] * vector[0] + row[1] * vector[1] + row[2] * vector[2]);
}

function multiply(a, b) {
  return a.map((row) => [0, 1, 2].map((k) => row[0] * b[0][k] + row[1] * b[1][k] + row[2] * b[2][k]));
}

// About x (axis 0) or y (axis 1).
function rotation(axis, angle) {
  const [c, s] = [Math.cos(angle), Math.sin(angle)];
  return axis === 0 ? [[1, 0, 0], [0, c, -s], [0, s, c]] : [[c, 0, s], [0, 1, 0], [-s, 0, c]];
}

function findBonds(positions, radii) {
  const bonds = [];
  for (let i = 0; i < positions.length; i += 1) {
    for (let j = i + 1; j < positions.length; j += 1) {
      const distance = length(minusVector(positions[i], positions[j]));
      if (distance < BOND_REACH * (radii[i] + radii[j])) bonds.push([i, j]);
    }
  }
  return bonds;
}

function cellCorners(cell) {
  const corners = [];
  for (let index = 0; index < 8; index += 1) {
    corners.push([0, 1, 2].map((axis) =>
      cell.reduce((sum, row, k) => sum + ((index >> k) & 1) * row[axis], 0)));
  }
  return corners;
}

function cellEdges(corners) {
  const edges = [];
  corners.forEach((corner, index) => {
    for (const bit of [1, 2, 4]) {
      if (!(index & bit)) edges.push([corner, corners[index | bit]]);
    }
  });
  return edges;
}
