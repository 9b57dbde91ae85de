// Plots in SVG: their colours come from the style sheet, so light, dark and print need no redrawing.

const SIZE = { width: 350, height: 260, left: 62, right: 8, top: 10, bottom: 42 };
const WIDE = { ...SIZE, width: 520 };

// Two plots side by side are wider than three, but not on a phone, where each has the whole width.
function sizeFor(nPlots) {
  return nPlots % 2 || innerWidth < 720 ? SIZE : WIDE;
}

// From values to places along an axis, with the ticks of it.
function scale(low, high, from, to, logarithmic = false) {
  const map = logarithmic ? Math.log10 : (x) => x;
  const [a, b] = [map(low), map(high)];
  const at = (x) => from + ((map(x) - a) / (b - a)) * (to - from);
  return { at, low, high, ticks: logarithmic ? decades(low, high) : roundNumbers(low, high) };
}

function roundNumbers(low, high, wanted = 5) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k += 1) {
    ticks.push({ value: k * step, label: minus(tickLabel(k * step, step)) });
  }
  return ticks;
}

function tickLabel(value, step) {
  if (value === 0) return "0";
  if (Math.abs(value) >= 1e5 || step < 1e-4) return value.toExponential(1);
  return value.toFixed(Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
}

function decades(low, high) {
  const ticks = [];
  const factors = Math.log10(high / low) < 1.5 ? [1, 2, 5] : [1];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const factor of factors) {
      const value = factor * 10 ** power;
      if (value < low * 0.999 || value > high * 1.001) continue;
      const plain = power >= -3 && power <= 4;
      ticks.push({ value, label: plain ? value.toFixed(Math.max(0, -power))
        : factor === 1 ? `10${raised(power)}` : "" });
    }
  }
  return ticks;
}

// Limits of values with a little room, never of no width.
function limits(values, logarithmic = false) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value === null || !Number.isFinite(value) || (logarithmic && value <= 0)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return logarithmic ? [0.1, 1] : [0, 1];
  if (logarithmic) return low * 2 > high ? [low / 2, high * 2] : [low / 1.25, high * 1.25];
  const room = 0.05 * (high - low) || 0.05 * Math.abs(high) || 1;
  return [low - room, high + room];
}

// An empty plot with axes; its marks are appended to `inside`, which is cut at the frame.
let plotNumber = 0;
function frame(x, y, xLabel, yLabel, size) {
  const { width, height, left, right, top, bottom } = size;
  plotNumber += 1;
  const box = { x: left, y: top, width: width - left - right, height: height - top - bottom };
  const root = svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${yLabel} over ${xLabel}` });
  const clip = svg("clipPath", { id: `clip${plotNumber}` }, svg("rect", box));
  const inside = svg("g", { "clip-path": `url(#clip${plotNumber})` });
  for (const { value, label } of x.ticks) {
    const place = x.at(value);
    root.append(svg("path", { class: "grid", d: `M${place},${top}V${height - bottom}` }),
      svg("text", { x: place, y: height - bottom + 15, "text-anchor": "middle" }, label));
  }
  for (const { value, label } of y.ticks) {
    const place = y.at(value);
    root.append(svg("path", { class: "grid", d: `M${left},${place}H${width - right}` }),
      svg("text", { x: left - 6, y: place + 4, "text-anchor": "end" }, label));
  }
  root.append(
    svg("path", { class: "axis", d: `M${left},${top}V${height - bottom}H${width - right}` }),
    svg("text", { x: left + box.width / 2, y: height - 8, "text-anchor": "middle" }, xLabel),
    svg("text", { x: 0, y: 0, "text-anchor": "middle",
      transform: `translate(12 ${top + box.height / 2}) rotate(-90)` }, yLabel),
    clip, inside);
  return { root, inside };
}

function axes(xLimits, yLimits, xLabel, yLabel, { logY = false, size = SIZE } = {}) {
  const { width, height, left, right, top, bottom } = size;
  const x = scale(...xLimits, left, width - right);
  const y = scale(...yLimits, height - bottom, top, logY);
  return { x, y, ...frame(x, y, xLabel, yLabel, size) };
}

// The nearest of some places is ringed, and told in the hint.
function followPointer(root, inside, places, tell, reach = 24) {
  const ring = svg("circle", { class: "here", r: 4.5, visibility: "hidden" });
  inside.append(ring);
  root.addEventListener("pointermove", (event) => {
    const point = new DOMPoint(event.clientX, event.clientY)
      .matrixTransform(root.getScreenCTM().inverse());
    let [best, nearest] = [-1, reach * reach];
    places.forEach(([px, py], index) => {
      const distance = (px - point.x) ** 2 + (py - point.y) ** 2;
      if (distance < nearest) [best, nearest] = [index, distance];
    });
    ring.setAttribute("visibility", best < 0 ? "hidden" : "visible");
    if (best < 0) return hint.hide();
    ring.setAttribute("cx", places[best][0]);
    ring.setAttribute("cy", places[best][1]);
    return hint.show(event, tell(best));
  });
  root.addEventListener("pointerleave", () => {
    ring.setAttribute("visibility", "hidden");
    hint.hide();
  });
}

// Lines over one x; where a value is missing, the line is broken.
function linePlot({ x, series, xLabel, yLabel, logY = false, size = SIZE, marks = [], yLimits,
  xLimits, tell }) {
  const all = series.flatMap((one) => one.y);
  const plot = axes(xLimits ?? limits(x), yLimits ?? limits(all, logY), xLabel, yLabel,
    { logY, size });
  for (const mark of marks) {
    const place = plot.x.at(mark.x);
    plot.inside.append(svg("path", { class: mark.kind ?? "mark",
      d: `M${place},${SIZE.top}V${SIZE.height - SIZE.bottom}` }));
  }
  const places = [];
  const owners = [];
  series.forEach((one, which) => {
    let path = "";
    let pen = "M";
    one.y.forEach((value, index) => {
      const drawable = value !== null && (!logY || value > 0);
      if (drawable) {
        const place = [plot.x.at(x[index]), plot.y.at(value)];
        path += `${pen}${place[0].toFixed(1)},${place[1].toFixed(1)}`;
        places.push(place);
        owners.push([which, index]);
      }
      pen = drawable ? "L" : "M";
    });
    plot.inside.append(svg("path", { class: `line g${one.color ?? which}`, d: path }));
  });
  if (tell) followPointer(plot.root, plot.inside, places, (index) => tell(...owners[index]), 40);
  return { ...plot };
}

// A layer of dots of one colour, as one path: thousands of them stay light.
function dots(places, color) {
  const d = places.map(([px, py]) => `M${px.toFixed(1)},${py.toFixed(1)}h0`).join("");
  return svg("path", { class: `dots g${color}`, d });
}

// The outline of a histogram between limits.
function outline(plot, counts, limit, color) {
  const width = (2 * limit) / counts.length;
  let d = "";
  counts.forEach((n, index) => {
    const [from, to] = [-limit + index * width, -limit + (index + 1) * width];
    const height = plot.y.at(Math.max(n, 0.5)).toFixed(1);
    d += `${index ? "L" : "M"}${plot.x.at(from).toFixed(1)},${height}H${plot.x.at(to).toFixed(1)}`;
  });
  return svg("path", { class: `step g${color}`, d });
}
