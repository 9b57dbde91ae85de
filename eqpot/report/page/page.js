// The page: the report inside of it, section after section; one that fails does not hide the rest.

const report = JSON.parse(document.getElementById("report").textContent);
const page = document.getElementById("page");
const made = [errorTables, learningCurves, fineTuning, predictions, worstFrames, dimers, physics, speed,
  dataSection, origin].map((make) => {
  try {
    return make(report);
  } catch (error) {
    console.error(error);
    return el("p", {}, `A section could not be drawn: ${error.message}`);
  }
}).filter(Boolean);
const links = made.filter((part) => part.id).map((part) =>
  el("a", { href: `#${part.id}` }, part.querySelector("h2").textContent));
page.append(head(report), tiles(report), ...verdicts(report).filter(Boolean),
  el("nav", { "aria-label": "Sections" }, links), ...made);

// On paper nothing can be opened.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
