// The tabs: arrow keys, and tasks that the model cannot do, which say why.

export class Tabs {
  /** onSelect: called with the task's name. */
  constructor(list, reason, onSelect) {
    this.tabs = [...list.querySelectorAll("[role=tab]")];
    this.reason = reason;
    this.onSelect = onSelect;
    this.reasons = new Map();
    for (const tab of this.tabs) {
      tab.addEventListener("click", () => this.choose(tab));
      tab.addEventListener("focus", () => this.explain(tab));
      tab.addEventListener("pointerenter", () => this.explain(tab));
      tab.addEventListener("pointerleave", () => this.explain(document.activeElement));
      tab.addEventListener("blur", () => this.explain(null));
      tab.addEventListener("keydown", (event) => this.move(event, tab));
    }
  }

  /** reasons: {task: why the model cannot do it, or null}. */
  setReasons(reasons, model) {
    for (const tab of this.tabs) {
      const why = reasons[tab.dataset.task];
      tab.toggleAttribute("aria-disabled", false);
      this.reasons.delete(tab);
      if (why !== null) {
        tab.setAttribute("aria-disabled", "true");
        this.reasons.set(tab, `${model} cannot do this: ${why.replace(/^\w+: /, "")}.`);
      }
    }
  }

  can(task) {
    return !this.reasons.has(this.tab(task));
  }

  /** The first task that the model can do; null: none. */
  first() {
    return this.tabs.find((tab) => !this.reasons.has(tab))?.dataset.task ?? null;
  }

  tab(task) {
    return this.tabs.find((tab) => tab.dataset.task === task);
  }

  select(task) {
    for (const tab of this.tabs) {
      const chosen = tab.dataset.task === task;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !chosen;
    }
    this.onSelect(task);
  }

  choose(tab) {
    if (this.reasons.has(tab)) this.explain(tab);
    else this.select(tab.dataset.task);
  }

  explain(tab) {
    const why = this.reasons.get(tab);
    this.reason.hidden = !why;
    this.reason.textContent = why || "";
    for (const one of this.tabs) one.removeAttribute("aria-describedby");
    if (why) tab.setAttribute("aria-describedby", this.reason.id);
  }

  move(event, tab) {
    const at = this.tabs.indexOf(tab);
    const last = this.tabs.length - 1;
    const to = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at === 0 ? last : at - 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.tabs[to].focus();
    this.choose(this.tabs[to]);
  }
}
