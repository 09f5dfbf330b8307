// What was done in this session. It is kept in memory only.

import { TITLES } from "./tasks.js";

export const MOST = 30; // the oldest entry goes when there is one more

export class History {
  /** onOpen({picture, view}). onForget(pictures): pictures that no entry shows any more. */
  constructor(onOpen, onForget) {
    this.entries = [];
    this.onOpen = onOpen;
    this.onForget = onForget;
    this.section = document.getElementById("history");
    this.list = document.getElementById("entries");
    document.getElementById("clear").addEventListener("click", () => this.clear());
  }

  add(picture, view) {
    this.entries.unshift({ picture, view });
    const gone = this.entries.splice(MOST);
    this.forget(gone);
    this.draw();
  }

  clear() {
    const gone = this.entries.splice(0);
    this.forget(gone);
    this.draw();
  }

  forget(gone) {
    const kept = new Set(this.entries.map((entry) => entry.picture));
    this.onForget([...new Set(gone.map((entry) => entry.picture))].filter((picture) => !kept.has(picture)));
  }

  draw() {
    this.section.hidden = !this.entries.length;
    this.list.replaceChildren(
      ...this.entries.map((entry) => {
        const row = document.createElement("li");
        const button = document.createElement("button");
        const image = document.createElement("img");
        const title = document.createElement("span");
        const text = document.createElement("span");
        button.type = "button";
        image.src = entry.picture.url;
        image.alt = "";
        title.className = "entry-title";
        title.textContent = entry.view.task === "ask" ? entry.view.input.question : TITLES[entry.view.task];
        text.className = "entry-text";
        text.textContent = entry.view.text || "(no text)";
        button.append(image, title, text);
        button.addEventListener("click", () => this.onOpen(entry));
        row.append(button);
        return row;
      }),
    );
  }
}
