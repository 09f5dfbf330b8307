// A result in the panel: its text with phrases, what was found, notes, errors.

import { inWords } from "./api.js";
import { TITLES } from "./tasks.js";
import { COLOURS } from "./stage.js";

const at = (id) => document.getElementById(id);

/** Shows a view; null: nothing. retry: called by "Try again". */
export function draw(view, lights, about, retry) {
  at("result").hidden = !view || (view.state === "failed" && !view.text);
  drawError(view?.state === "failed" ? view.error : null, about, retry);
  if (!view) return;
  const running = view.state === "running";
  at("result-title").textContent = heading(view);
  at("result-title").classList.toggle("unseen", view.task !== "ask");
  at("result").setAttribute("aria-busy", String(running));
  at("text").classList.toggle("waiting", running && !view.text);
  at("text").classList.toggle("streaming", running && Boolean(view.text));
  at("text").classList.toggle("lines", view.task === "read");
  drawText(view, lights);
  show("found", running ? "" : found(view));
  drawNotes(view);
  at("meta").textContent = meta(view);
  at("copy").hidden = view.state !== "done";
  const boxless = !view.entities.some((entity) => entity.boxes.some((box) => box.valid));
  at("copy").querySelector("[data-copy=coco]").disabled = boxless;
}

function heading(view) {
  const { task, input } = view;
  if (task === "ask") return input.question;
  return TITLES[task];
}

/** The text as it is so far, its phrases as buttons. Whoever had the focus keeps it. */
function drawText(view, lights) {
  const held = document.activeElement?.closest?.("#text .phrase")?.dataset.entity;
  const text = Array.from(view.text); // spans count code points
  const parts = [];
  let end = 0;
  const ordered = view.entities.map((entity, number) => ({ entity, number })).sort((a, b) => a.entity.span[0] - b.entity.span[0]);
  for (const { entity, number } of ordered) {
    const [begin, stop] = entity.span;
    if (begin < end || begin === stop || !entity.boxes.some((box) => box.valid)) continue;
    parts.push(text.slice(end, begin).join(""), phrase(text.slice(begin, stop).join(""), number, lights));
    end = stop;
  }
  parts.push(text.slice(end).join(""));
  at("text").replaceChildren(...parts);
  if (!view.text && view.state === "done") at("text").textContent = "(no text)";
  if (held) at("text").querySelector(`[data-entity="${held}"]`)?.focus();
}

function phrase(text, number, lights) {
  const span = document.createElement("span");
  span.className = `phrase c${number % COLOURS}`;
  span.textContent = text;
  span.tabIndex = 0;
  span.setAttribute("role", "button");
  span.setAttribute("aria-pressed", "false");
  span.dataset.entity = number;
  lights.attach(span, number);
  return span;
}

/** Lights the phrase of an entity; null: none. */
export function light(number, pinned) {
  for (const span of at("text").querySelectorAll(".phrase")) {
    const lit = Number(span.dataset.entity) === number;
    span.classList.toggle("lit", lit);
    span.setAttribute("aria-pressed", String(lit && pinned));
  }
}

function found(view) {
  if (view.state !== "done") return "";
  const boxes = view.entities.reduce((sum, entity) => sum + entity.boxes.filter((box) => box.valid).length, 0);
  if (view.task === "locate") {
    if (!boxes) return "Not found: the model gives no box for it.";
    const score = view.entities[0].found_score;
    const sure = score === null ? "" : `; the model is ${percent(score)} sure`;
    return `${boxes} ${boxes === 1 ? "box" : "boxes"}${sure}.`;
  }
  if (view.task === "read" && view.result.lines) return `${view.result.lines.length} ${view.result.lines.length === 1 ? "line" : "lines"}.`;
  return "";
}

function percent(share) {
  const value = Math.round(share * 100);
  return share < 1 && value === 100 ? "over 99 %" : `${value} %`;
}

function drawNotes(view) {
  const notes = [...(view.result?.notes ?? [])];
  if (view.result?.finish_reason === "length") notes.push("The answer ends here because it has reached its greatest length.");
  if (view.state === "stopped") notes.push("Stopped.");
  const rows = notes.map((note) => {
    const row = document.createElement("li");
    row.textContent = note;
    return row;
  });
  at("notes").replaceChildren(...rows);
  at("notes").hidden = !rows.length;
}

function meta(view) {
  if (view.state === "running") return view.text ? "" : "Looking at the picture …";
  const tokens = view.result?.timings?.tokens;
  const parts = view.ms < 995 ? [`${Math.round(view.ms)} ms`] : [`${(view.ms / 1000).toFixed(1)} s`];
  if (tokens) parts.push(`${tokens} tokens`);
  if (view.result?.model) parts.push(view.result.model);
  return parts.join(" · ");
}

/** An error in the panel; null: none. */
export function drawError(error, about, retry) {
  const box = at("error");
  box.hidden = !error;
  box.replaceChildren();
  if (!error) return;
  const { title, detail } = inWords(error, about);
  const strong = document.createElement("strong");
  strong.textContent = title;
  box.append(strong);
  if (detail) box.append(` ${detail}`);
  if (retry) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "small";
    button.textContent = "Try again";
    button.addEventListener("click", () => {
      at("work").focus({ preventScroll: true }); // the button goes
      retry();
    });
    box.append(" ", button);
  }
}

/** Sets a line's text, and hides it if there is none. */
export function show(id, text) {
  at(id).textContent = text;
  at(id).hidden = !text;
}
