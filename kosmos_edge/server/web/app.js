// The page: joins pictures, tasks, results and history.

import { getAbout, inWords, largestFile, ServerError, setKey, size } from "./api.js";
import { toClipboard, written } from "./forms.js";
import { History } from "./history.js";
import { openPicture, startIntake } from "./intake.js";
import { Lights } from "./lights.js";
import { Stage } from "./stage.js";
import { Tabs } from "./tabs.js";
import { answer, grounds, TITLES } from "./tasks.js";
import { draw, drawError, light, show } from "./view.js";

const at = (id) => document.getElementById(id);
const form = (task) => document.querySelector(`form[data-task=${task}]`);

const state = {
  about: null, // what /v1/about says
  picture: null,
  task: "caption",
  running: null, // {view, controller}
};

const lights = new Lights();
const stage = new Stage(lights, onDraft);
lights.onChange((number, pinned) => {
  stage.light(number, pinned);
  light(number, pinned);
});
const tabs = new Tabs(at("tabs"), at("tab-reason"), onTask);
const history = new History(openEntry, forget);

// ---- the server

/** Asks what is served. resume: then begins what waits for it. */
async function connect(resume = true) {
  drawError(null);
  try {
    state.about = await getAbout();
  } catch (error) {
    if (wantsKey(error)) askKey("");
    else drawError(error, null, () => connect());
    return false;
  }
  const { about } = state;
  at("key-form").hidden = true;
  at("model").textContent = about.model;
  at("model").hidden = false;
  document.title = `${about.model} · kosmos-edge`;
  show("notice", about.notice);
  tabs.setReasons({ ...about.tasks }, about.model);
  at("length").hidden = about.tasks.caption_long !== null;
  at("ask-boxes").hidden = !grounds(about);
  at("markdown").hidden = about.tasks.read_markdown !== null;
  for (const button of document.querySelectorAll("[data-example]")) {
    button.parentElement.hidden = about.tasks[button.dataset.for] !== null;
  }
  const examples = [...document.querySelectorAll(".try li")];
  document.querySelector(".try").hidden = examples.every((item) => item.hidden);
  tabs.select(tabs.can(state.task) ? state.task : (tabs.first() ?? state.task));
  if (resume && state.picture && !state.picture.views[state.task]) autorun();
  return true;
}

const wantsKey = (error) => error instanceof ServerError && error.status === 401;

function askKey(problem) {
  at("key-form").hidden = false;
  show("key-error", problem);
  at("key").setAttribute("aria-invalid", String(Boolean(problem)));
  at("key").focus();
}

at("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  setKey(at("key").value);
  if (await connect()) {
    at("key").value = "";
    say("The key was accepted.");
    tabs.tab(state.task).focus();
  } else if (!at("key-form").hidden) {
    askKey("The server does not know this key.");
  }
});

// ---- pictures

async function take(file) {
  show("intake-error", "");
  const { about } = state;
  if (about && file.size > largestFile(about)) {
    show("intake-error", `${file.name} is too large for the server: ${size(file.size)}; it takes files of up to ${size(largestFile(about))}.`);
    return;
  }
  let picture;
  try {
    picture = await openPicture(file);
  } catch {
    show("intake-error", `${file.name} is not a picture that this browser can show.`);
    return;
  }
  stop();
  const hidden = at("empty").contains(document.activeElement);
  const former = state.picture;
  showPicture(picture);
  if (former) forget([former]);
  if (hidden) at("work").focus({ preventScroll: true });
  say(`${picture.name}, ${picture.width} by ${picture.height} pixels.`);
  if (state.about) autorun();
  else connect();
}

function showPicture(picture) {
  state.picture = picture;
  at("empty").hidden = Boolean(picture);
  at("shown").hidden = !picture;
  document.body.classList.toggle("has-picture", Boolean(picture));
  if (picture) {
    at("picture-name").textContent = `${picture.name} · ${picture.width}\u00a0×\u00a0${picture.height}`;
    for (const input of form("describe").querySelectorAll("input")) {
      input.max = input.name.startsWith("x") ? picture.width : picture.height;
    }
    stage.show(picture);
    fillCorners();
  }
  redraw();
}

/** What needs no words begins by itself. */
function autorun() {
  if ((state.task === "caption" || state.task === "read") && tabs.can(state.task)) run(state.task);
  else form(state.task).querySelector("input[type=text]")?.focus();
}

/** Frees pictures that neither the history nor the stage shows. */
function forget(pictures) {
  for (const picture of pictures) {
    const used = picture === state.picture || history.entries.some((entry) => entry.picture === picture);
    if (!used) URL.revokeObjectURL(picture.url);
  }
}

at("close").addEventListener("click", () => {
  stop();
  const picture = state.picture;
  showPicture(null);
  forget([picture]);
  document.querySelector("#empty [data-do=choose]").focus();
});

function openEntry({ picture, view }) {
  stop();
  picture.views[view.task] = view;
  if (view.input.box) picture.box = view.input.box;
  const former = state.picture;
  state.task = view.task;
  showPicture(picture);
  if (former && former !== picture) forget([former]);
  tabs.select(view.task);
  at("work").focus();
  say(`${TITLES[view.task]}: ${view.text}`);
}

// ---- tasks

function onTask(task) {
  state.task = task;
  lights.clear();
  stage.setDrawing(task === "describe");
  redraw();
}

/** The fields of a task's form, or {problem}. */
function inputOf(task) {
  const fields = new FormData(form(task));
  if (task === "caption") return { length: fields.get("length") };
  if (task === "ask") return { question: fields.get("question").trim(), ground: fields.has("ground") };
  if (task === "locate") return { phrase: fields.get("phrase").trim() };
  if (task === "read") return { markdown: fields.has("markdown") };
  return { box: stage.box };
}

function problemOf(task, input) {
  if (!state.picture) return "Choose a picture first.";
  if (task === "ask" && !input.question) return "Type a question first.";
  if (task === "locate" && !input.phrase) return "Type what to look for first.";
  if (task === "describe" && !input.box) return "Draw a box on the picture first, or place one.";
  return "";
}

async function run(task) {
  const input = inputOf(task);
  const problem = problemOf(task, input);
  if (problem) {
    stop();
    if (state.picture) delete state.picture.views[task];
    redraw();
    const error = at("error");
    error.textContent = problem;
    error.hidden = false;
    form(task).querySelector("input[type=text]")?.focus();
    return;
  }
  if (!state.about && !(await connect(false))) return;
  stop();
  const { picture } = state;
  const controller = new AbortController();
  const view = { task, input, text: "", entities: [], result: null, state: "running", error: null, ms: 0 };
  picture.views[task] = view;
  state.running = { view, controller };
  lights.clear();
  redraw();
  say("Working.");
  const begun = performance.now();
  try {
    for await (const part of answer(task, picture, input, state.about, controller.signal)) {
      add(view, part);
      if (state.picture === picture && state.task === task) redraw();
    }
    view.state = "done";
  } catch (error) {
    view.state = controller.signal.aborted ? "stopped" : "failed";
    view.error = error;
  }
  view.ms = performance.now() - begun;
  finish(picture, view);
}

function add(view, { text, entity, result }) {
  if (text !== undefined) view.text += text;
  if (entity) view.entities.push(entity);
  if (result) {
    view.result = result;
    view.text = result.text;
    view.entities = result.entities;
  }
}

function finish(picture, view) {
  if (state.running?.view === view) state.running = null;
  if (view.state === "done") {
    if (view.task === "caption") picture.alt = view.text;
    history.add(picture, view);
  }
  if (state.picture !== picture || picture.views[view.task] !== view) return;
  const onStop = document.activeElement?.dataset?.do === "stop";
  stage.image.alt = picture.alt || stage.image.alt;
  redraw();
  if (onStop) form(view.task).querySelector(".primary").focus();
  if (view.state === "done") say(`${TITLES[view.task]}: ${view.text || "no text"}`);
  else if (view.state === "stopped") say("Stopped.");
  else if (wantsKey(view.error)) askKey(inWords(view.error).title);
}

/** Ends the answer that is being streamed: the server stops when the connection closes. */
function stop() {
  state.running?.controller.abort();
}

function redraw() {
  const view = state.picture?.views[state.task] ?? null;
  const running = state.running?.view === view && view !== null;
  for (const button of form(state.task).querySelectorAll("[data-do=stop]")) button.hidden = !running;
  draw(view, lights, state.about, () => run(state.task));
  const held = document.activeElement?.dataset?.entity;
  stage.setBoxes(view?.entities ?? [], view?.result?.box);
  lights.tell(held === undefined ? lights.pinned : Number(held));
}

for (const one of document.querySelectorAll("form[data-task]")) {
  one.noValidate = true; // our own words, where the results are
  one.addEventListener("submit", (event) => {
    event.preventDefault();
    run(one.dataset.task);
  });
}
for (const button of document.querySelectorAll("[data-do=stop]")) button.addEventListener("click", stop);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !at("camera").open) stop();
});

// ---- the box to describe

const corners = () => ["x1", "y1", "x2", "y2"].map((name) => form("describe").elements[name]);

function onDraft(box, finished) {
  state.picture.box = box;
  fillCorners();
  clearTimeout(onDraft.timer);
  if (finished) run("describe");
  else if (document.activeElement === stage.draft) onDraft.timer = setTimeout(() => say(`Box: ${corners().map((input) => input.value).join(", ")}`), 400);
}

function fillCorners() {
  const { box, width, height } = state.picture;
  corners().forEach((input, number) => {
    input.value = box ? Math.round(box[number] * (number % 2 ? height : width) * 10) / 10 : "";
  });
}

form("describe").addEventListener("change", () => {
  const { picture } = state;
  if (!picture) return;
  const [x1, y1, x2, y2] = corners().map((input) => (input.value === "" ? NaN : Number(input.value)));
  const fits = x1 >= 0 && y1 >= 0 && x1 < x2 && y1 < y2 && x2 <= picture.width && y2 <= picture.height;
  picture.box = fits ? [x1 / picture.width, y1 / picture.height, x2 / picture.width, y2 / picture.height] : null;
  stage.setDraft(picture.box);
});
document.querySelector("[data-do=place]").addEventListener("click", () => {
  if (state.picture) stage.placeDraft();
  else run("describe"); // says that a picture is missing
});

// ---- copying, colours, status

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const { picture, task } = state;
    const done = await toClipboard(written(button.dataset.copy, picture.views[task].result, picture.name));
    const text = done ? `Copied as ${button.textContent}.` : "The browser does not allow copying.";
    at("copied").textContent = text;
    say(text);
    setTimeout(() => (at("copied").textContent = ""), 2500);
  });
}

function say(text) {
  at("status").textContent = text;
}

function stored(name, value) {
  try {
    if (value !== undefined) localStorage.setItem(name, value);
    return localStorage.getItem(name);
  } catch {
    return null; // storage is switched off
  }
}

const THEME = "kosmos-edge-theme";
if (stored(THEME)) document.documentElement.dataset.theme = stored(THEME);
at("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  stored(THEME, document.documentElement.dataset.theme);
});

at("clear").addEventListener("click", () => {
  say("The history was cleared.");
  at("work").focus();
});

startIntake(take, (problem) => show("intake-error", problem));
tabs.select(state.task);
connect();
