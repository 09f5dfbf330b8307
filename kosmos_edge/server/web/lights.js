// Which phrase is lit: hover and focus light it, a click keeps it lit. Phrases and boxes share this.

export class Lights {
  constructor() {
    this.pinned = null;
    this.listeners = [];
  }

  onChange(listener) {
    this.listeners.push(listener);
  }

  /** Makes an element of a phrase or a box light the entity of that number. */
  attach(element, number) {
    element.addEventListener("pointerenter", () => this.tell(number));
    element.addEventListener("pointerleave", () => this.tell(this.pinned));
    element.addEventListener("focus", () => this.tell(number));
    element.addEventListener("blur", () => this.tell(this.pinned));
    element.addEventListener("click", () => this.pin(number));
    element.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      this.pin(number);
    });
  }

  pin(number) {
    this.pinned = this.pinned === number ? null : number;
    this.tell(this.pinned ?? number);
  }

  clear() {
    this.pinned = null;
    this.tell(null);
  }

  tell(number) {
    for (const listener of this.listeners) listener(number, number !== null && number === this.pinned);
  }
}
