// Uses the viewer's page as a person does, and says what it showed. Runs in a browser and in node.
"use strict";
const el = (id) => document.getElementById(id);
const texts = (node) => node.textContent;
const cells = () => Array.from(el("panels").querySelectorAll(".panel"), (panel) =>
  Array.from(panel.querySelectorAll(".cell"), (cell) => [
    texts(cell.children[0]), cell.className.split(" ").filter((word) => word !== "cell").sort().join(" "), texts(cell.children[1]).trim(),
  ]));
const look = () => ({
  at: Number(el("at").value), said: texts(el("said")), value: el("at").getAttribute("aria-valuetext"), cells: cells(),
  tally: Array.from(el("panels").querySelectorAll(".tally"), texts), play: texts(el("play")), live: el("said").getAttribute("aria-live"),
});
function press(key, target) {
  if (document.dispatch) return document.dispatch("keydown", { key, target: target || document });
  const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
  (target || document.body).dispatchEvent(event);
  return event;
}
function fire(node, type) {
  if (node.dispatch) node.dispatch(type);
  else node.dispatchEvent(new Event(type));
}
function drive() {
  const seen = { start: look(), differ: texts(el("differ")), hidden: { differ: el("to-differ").hidden, wrong: el("to-wrong").hidden } };
  el("first").click(); seen.first = look();
  el("next").click(); seen.next = look();
  press("ArrowRight"); seen.right = look();
  el("back").click(); seen.back = look();
  press("Home"); seen.home = look();
  press("End"); seen.end = look();
  el("at").value = "1"; fire(el("at"), "input"); seen.scrubbed = look();
  press("w"); seen.wrong = look();
  press("d"); seen.differs = look();
  press("ArrowRight", el("at")); seen.onSlider = look().at; // the slider moves by itself
  press("Home"); press(" "); seen.playing = look();
  tick(); seen.ticked = look();
  press(" "); seen.paused = look();
  press(" ");
  for (let i = 0; i < 100 && globalThis.tick; i += 1) tick();
  seen.played = look();
  el("colour").value = "confidence"; fire(el("colour"), "change");
  seen.strength = Array.from(el("panels").querySelectorAll(".cell"), (cell) => cell.style["--t"] || cell.style.getPropertyValue("--t"));
  press("c"); seen.colour = el("colour").value;
  seen.statistics = texts(el("statistics"));
  const shown = Array.from(el("panels").querySelectorAll(".shown"));
  if (shown.length) { shown[0].click(); seen.clicked = look(); }
  return seen;
}
