// The picture with its boxes, and the box that is drawn on it.

const SVG = "http://www.w3.org/2000/svg";
const SCALE = 1000; // units of the SVG per side of the picture
const LEAST = 0.01; // of a side: a drawn box that is smaller was a click
const STEP = 0.02;

export const COLOURS = 8;

/** The boxes of entities that can be drawn: {entity number, box}, large ones first, so that small ones lie on top. */
function drawable(entities) {
  const found = entities.flatMap((entity, number) =>
    entity.boxes.filter((box) => box.valid).map((box) => ({ number, phrase: entity.phrase, corners: box.normalized })),
  );
  const area = ({ corners: [x1, y1, x2, y2] }) => (x2 - x1) * (y2 - y1);
  return found.sort((a, b) => area(b) - area(a));
}

function rect(name, [x1, y1, x2, y2]) {
  const found = document.createElementNS(SVG, "rect");
  found.setAttribute("class", name);
  found.setAttribute("x", x1 * SCALE);
  found.setAttribute("y", y1 * SCALE);
  found.setAttribute("width", (x2 - x1) * SCALE);
  found.setAttribute("height", (y2 - y1) * SCALE);
  return found;
}

export class Stage {
  /** lights: see lights.js. onDraft(box, finished): the drawn box in fractions of the picture. */
  constructor(lights, onDraft) {
    this.frame = document.getElementById("frame");
    this.image = document.getElementById("picture");
    this.svg = document.getElementById("boxes");
    this.draft = document.getElementById("draft");
    this.tag = document.getElementById("tag");
    this.lights = lights;
    this.onDraft = onDraft;
    this.box = null;
    this.shapes = [];
    this.drawing = false;
    this.svg.setAttribute("viewBox", `0 0 ${SCALE} ${SCALE}`);
    this.svg.addEventListener("keydown", (event) => this.walk(event));
    this.frame.addEventListener("pointerdown", (event) => this.begin(event));
    this.frame.addEventListener("pointermove", (event) => this.drag(event));
    this.frame.addEventListener("pointerup", (event) => this.end(event));
    this.frame.addEventListener("pointercancel", () => this.giveUp());
    this.draft.addEventListener("keydown", (event) => this.nudge(event));
  }

  show(picture) {
    this.image.src = picture.url;
    this.image.alt = picture.alt || `The picture ${picture.name}`;
    this.frame.style.setProperty("--ratio", picture.width / picture.height);
    this.setDraft(picture.box);
  }

  // ---- boxes of a result

  /** asked: the box that was asked about, as the model sees it. Whoever had the focus keeps it. */
  setBoxes(entities, asked) {
    const held = this.svg.contains(document.activeElement) ? document.activeElement.dataset.entity : null;
    this.tag.hidden = true;
    this.shapes = drawable(entities);
    this.svg.replaceChildren(...this.shapes.map((shape, at) => this.shape(shape, at === 0)));
    if (asked) this.svg.prepend(rect("asked", asked.normalized));
    if (this.shapes.length) this.svg.removeAttribute("aria-hidden");
    else this.svg.setAttribute("aria-hidden", "true");
    if (held !== null) this.svg.querySelector(`[data-entity="${held}"]`)?.focus();
  }

  shape({ number, phrase, corners }, first) {
    const group = document.createElementNS(SVG, "g");
    group.setAttribute("class", `box c${number % COLOURS}`);
    group.setAttribute("role", "button");
    group.setAttribute("tabindex", first ? "0" : "-1");
    group.setAttribute("aria-label", `Box of ${phrase || "something without a name"}`);
    group.dataset.entity = number;
    group.append(rect("halo", corners), rect("line", corners));
    this.lights.attach(group, number);
    return group;
  }

  /** Arrow keys go from box to box. */
  walk(event) {
    const boxes = [...this.svg.querySelectorAll(".box")];
    const at = boxes.indexOf(event.target);
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (at < 0 || !step) return;
    event.preventDefault();
    const next = boxes[(at + step + boxes.length) % boxes.length];
    for (const box of boxes) box.setAttribute("tabindex", box === next ? "0" : "-1");
    next.focus();
  }

  /** Lights the boxes of an entity and names it at the first one; null: none. */
  light(number, pinned) {
    for (const group of this.svg.querySelectorAll(".box")) {
      const lit = Number(group.dataset.entity) === number;
      group.classList.toggle("lit", lit);
      group.setAttribute("aria-pressed", String(lit && pinned));
    }
    this.svg.classList.toggle("one", number !== null);
    const shape = number === null ? null : this.shapes.find((one) => one.number === number);
    this.tag.hidden = !shape?.phrase;
    if (this.tag.hidden) return;
    const [x1, y1, x2, y2] = shape.corners;
    const left = x1 + x2 <= 1;
    this.tag.textContent = shape.phrase;
    this.tag.className = `tag c${number % COLOURS}${y1 < 0.1 ? (y2 > 0.9 ? " inside" : " below") : ""}`;
    this.tag.style.setProperty("top", `${(y1 < 0.1 && y2 <= 0.9 ? y2 : y1) * 100}%`);
    this.tag.style.setProperty("left", left ? `${x1 * 100}%` : "auto");
    this.tag.style.setProperty("right", left ? "auto" : `${(1 - x2) * 100}%`);
  }

  // ---- the drawn box

  setDrawing(on) {
    this.drawing = on;
    this.frame.classList.toggle("drawing", on);
    this.setDraft(this.box);
  }

  /** corners: fractions of the picture, or null. */
  setDraft(corners) {
    this.box = corners ?? null;
    this.draft.hidden = !this.drawing || !this.box;
    if (!this.box) return;
    const [x1, y1, x2, y2] = this.box;
    this.draft.style.setProperty("left", `${x1 * 100}%`);
    this.draft.style.setProperty("top", `${y1 * 100}%`);
    this.draft.style.setProperty("width", `${(x2 - x1) * 100}%`);
    this.draft.style.setProperty("height", `${(y2 - y1) * 100}%`);
  }

  /** Where the pointer is, in fractions of the picture. */
  place(event) {
    const area = this.image.getBoundingClientRect();
    const within = (value) => Math.min(1, Math.max(0, value));
    return [within((event.clientX - area.left) / area.width), within((event.clientY - area.top) / area.height)];
  }

  begin(event) {
    if (!this.drawing || !event.isPrimary || event.button !== 0) return;
    event.preventDefault();
    this.frame.setPointerCapture(event.pointerId);
    this.start = this.place(event);
    this.former = this.box;
  }

  drag(event) {
    if (!this.start || !event.isPrimary) return;
    const [[ax, ay], [bx, by]] = [this.start, this.place(event)];
    this.setDraft([Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)]);
    this.onDraft(this.box, false);
  }

  end(event) {
    if (!this.start || !event.isPrimary) return;
    this.drag(event);
    this.start = null;
    const [x1, y1, x2, y2] = this.box;
    if (x2 - x1 < LEAST || y2 - y1 < LEAST) {
      this.setDraft(this.former);
      this.onDraft(this.box, false);
      return;
    }
    this.draft.focus({ preventScroll: true });
    this.onDraft(this.box, true);
  }

  giveUp() {
    if (!this.start) return;
    this.start = null;
    this.setDraft(this.former);
    this.onDraft(this.box, false);
  }

  /** For the keyboard: a box in the middle, if there is none, that has the focus. */
  placeDraft() {
    if (!this.box) this.setDraft([0.25, 0.25, 0.75, 0.75]);
    this.draft.focus();
    this.onDraft(this.box, false);
  }

  nudge(event) {
    if (event.key === "Enter") {
      event.preventDefault();
      this.onDraft(this.box, true);
      return;
    }
    const dx = { ArrowLeft: -STEP, ArrowRight: STEP }[event.key] || 0;
    const dy = { ArrowUp: -STEP, ArrowDown: STEP }[event.key] || 0;
    if (!dx && !dy) return;
    event.preventDefault();
    let [x1, y1, x2, y2] = this.box;
    if (event.shiftKey) {
      x2 = Math.min(1, Math.max(x1 + STEP, x2 + dx));
      y2 = Math.min(1, Math.max(y1 + STEP, y2 + dy));
    } else {
      const mx = Math.min(1 - x2, Math.max(-x1, dx));
      const my = Math.min(1 - y2, Math.max(-y1, dy));
      [x1, y1, x2, y2] = [x1 + mx, y1 + my, x2 + mx, y2 + my];
    }
    this.setDraft([x1, y1, x2, y2]);
    this.onDraft(this.box, false);
  }
}
