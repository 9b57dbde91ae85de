// Numbers as people read them, and elements of the page made without any markup from texts.

// A number with so many significant digits; beyond sensible sizes as a power of ten.
function figures(x, digits = 3) {
  if (x === null || x === undefined) return "–";
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e-3 && size < 1e6) {
    const after = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
    return minus(x.toFixed(Math.min(after, 12)));
  }
  const [mantissa, exponent] = x.toExponential(digits - 1).split("e");
  return `${minus(mantissa)} × 10${raised(Number(exponent))}`;
}

function minus(text) {
  return text.replace("-", "−");
}

function raised(exponent) {
  const digits = "⁰¹²³⁴⁵⁶⁷⁸⁹";
  const text = [...String(Math.abs(exponent))].map((digit) => digits[Number(digit)]).join("");
  return (exponent < 0 ? "⁻" : "") + text;
}

// A text in which `names of keys` are set as code.
function rich(text) {
  return text.split("`").map((part, index) => (index % 2 ? el("code", {}, part) : part));
}

// A count, its thousands set apart by a narrow space.
function count(n) {
  return String(n).replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
}

function plural(n, noun) {
  return `${count(n)} ${noun}${n === 1 ? "" : "s"}`;
}

function duration(seconds) {
  if (seconds < 60) return `${figures(seconds, 2)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

// The last part of a path: a set is known by its file.
function setName(name) {
  return name.split(/[\\/]/).pop() || name;
}

// An element; texts among the children become text, never markup.
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// A table; a column whose head begins with "#" holds numbers, set to the right.
function table(head, rows) {
  const kinds = head.map((text) => (text.startsWith("#") ? "number" : "text"));
  const cell = (tag) => (content, column) =>
    el(tag, { class: kinds[column] }, content === null || content === undefined ? "–" : content);
  const title = head.map((text) => text.replace(/^#/, ""));
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, title.map(cell("th")))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell("td")))))));
}

// The one hint that follows the pointer.
const hint = {
  node: null,
  show(event, text) {
    this.node ??= document.body.appendChild(el("div", { id: "hint", role: "status" }));
    this.node.textContent = text;
    this.node.hidden = false;
    const { width, height } = this.node.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, innerWidth - width - 8);
    const above = event.clientY - height - 12;
    this.node.style.left = `${Math.max(8, left)}px`;
    this.node.style.top = `${above > 8 ? above : event.clientY + 18}px`;
  },
  hide() {
    if (this.node) this.node.hidden = true;
  },
};
