"use strict";
// Front: show the formula of the hovered, focused or tapped dot.
for (const front of document.querySelectorAll("div.front")) {
  const marks = [...front.querySelectorAll("[data-mark]")];
  const choices = [...front.querySelectorAll("[data-choice]")];
  const select = (number) => {
    marks.forEach((mark, n) => {
      mark.classList.toggle("selected", n === number);
      mark.setAttribute("aria-pressed", n === number);
      mark.setAttribute("tabindex", n === number ? 0 : -1);
    });
    choices.forEach((choice, n) => choice.classList.toggle("selected", n === number));
  };
  const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -Infinity, End: Infinity };
  marks.forEach((mark, number) => {
    for (const event of ["pointerenter", "focus", "click"]) mark.addEventListener(event, () => select(number));
    mark.addEventListener("keydown", (event) => {
      if (!(event.key in steps)) return;
      event.preventDefault();
      marks[Math.min(marks.length - 1, Math.max(0, number + steps[event.key]))].focus();
    });
  });
  front.classList.add("scripted");
  select(Number(front.dataset.selected));
}
// Lines: show their values at the pointer next to their labels.
for (const chart of document.querySelectorAll("svg[data-lines]")) {
  const lines = JSON.parse(chart.dataset.lines);
  const cursor = chart.querySelector(".cursor");
  const outputs = chart.closest("figure").querySelectorAll("output");
  const clear = () => {
    cursor.setAttribute("visibility", "hidden");
    outputs.forEach((output) => (output.textContent = ""));
  };
  const show = (event) => {
    const box = chart.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
    lines.forEach((line, number) => {
      if (!line.x.length) return;
      let near = 0;
      line.x.forEach((place, n) => { if (Math.abs(place - x) < Math.abs(line.x[near] - x)) near = n; });
      if (number === 0) {
        cursor.setAttribute("x1", line.x[near]);
        cursor.setAttribute("x2", line.x[near]);
        cursor.setAttribute("visibility", "visible");
      }
      if (outputs[number]) outputs[number].textContent = `${line.y[near] ?? "–"} at ${line.v[near]}`;
    });
  };
  chart.addEventListener("pointermove", show);
  chart.addEventListener("pointerdown", show);
  chart.addEventListener("pointerleave", clear);
}
// Names: highlight the line of the hovered or focused name, or the lines of all tapped names.
for (const figure of document.querySelectorAll("figure")) {
  const keys = [...figure.querySelectorAll(".key")];
  const lines = [...figure.querySelectorAll(".series")];
  let near = -1;
  const show = () => {
    const on = keys.map((key, n) => n === near || key.getAttribute("aria-pressed") === "true");
    figure.classList.toggle("single", on.includes(true));
    lines.forEach((line, n) => line.classList.toggle("on", on[n]));
  };
  keys.forEach((key, n) => {
    for (const event of ["pointerenter", "focus"]) key.addEventListener(event, () => { near = n; show(); });
    for (const event of ["pointerleave", "blur"]) key.addEventListener(event, () => { near = -1; show(); });
    key.addEventListener("click", () => {
      key.setAttribute("aria-pressed", key.getAttribute("aria-pressed") !== "true");
      show();
    });
  });
}
// Print: expand all collapsed sections.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
