// Tabs as WAI-ARIA describes them: arrows, Home and End move, one of them is in the tab order.

export class Tabs {
  // `chosen(name)` hears which panel is shown.
  constructor(list, chosen) {
    this.tabs = [...list.querySelectorAll('[role="tab"]')];
    this.list = list;
    this.chosen = chosen;
    for (const tab of this.tabs) tab.addEventListener("click", () => this.#pick(tab));
    list.addEventListener("keydown", (event) => this.#key(event));
  }

  get names() {
    return this.tabs.map(nameOf);
  }

  show(name) {
    for (const tab of this.tabs) {
      const shown = nameOf(tab) === name;
      tab.setAttribute("aria-selected", String(shown));
      tab.tabIndex = shown ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !shown;
      if (shown) this.#reveal(tab);
    }
  }

  // Where the tabs are wider than the screen, scroll their line, not the page.
  #reveal(tab) {
    const left = tab.offsetLeft - this.list.offsetLeft;
    if (left < this.list.scrollLeft || left + tab.offsetWidth > this.list.scrollLeft + this.list.clientWidth) {
      this.list.scrollLeft = left - 24;
    }
  }

  #pick(tab) {
    this.show(nameOf(tab));
    this.chosen(nameOf(tab));
  }

  #key(event) {
    const shown = this.tabs.filter((tab) => !tab.hidden), at = shown.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: shown.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    const tab = shown[(to + shown.length) % shown.length];
    tab.focus();
    this.#pick(tab);
  }
}

const nameOf = (tab) => tab.id.replace("tab-", "");
