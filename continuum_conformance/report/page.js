"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const chapters = all(".chapter");
  const filters = document.querySelector(".filters");
  const nothing = document.querySelector(".nothing");

  // Copy buttons.
  for (const box of all(".copyable")) {
    const text = box.querySelector("pre");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "copy";
    button.setAttribute("aria-label", `copy: ${text.getAttribute("aria-label") || "code"}`);
    button.addEventListener("click", async () => {
      let done = true;
      try {
        await navigator.clipboard.writeText(text.textContent);
      } catch {
        getSelection().selectAllChildren(text);
        done = document.execCommand("copy");
      }
      button.textContent = done ? "copied" : "press Ctrl+C";
      setTimeout(() => { button.textContent = "copy"; }, 1600);
    });
    box.append(button);
  }

  // The steps of a race: one of them in the order of tabs, arrows to the others, Escape against what hides the rest.
  for (const race of all(".race")) {
    const steps = all(".move > button", race);
    steps.forEach((step, place) => { step.tabIndex = place ? -1 : 0; });
    race.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { race.classList.add("hush"); return; }
      const place = steps.indexOf(document.activeElement);
      const to = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: steps.length - 1 }[event.key];
      if (place < 0 || to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const next = steps[Math.min(Math.max(to, 0), steps.length - 1)];
      steps[place].tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
    for (const type of ["focusin", "pointerover"]) {
      race.addEventListener(type, () => race.classList.remove("hush"));
    }
  }

  // Filter by standing: chapters without a match go away, the others unfold.
  const initially = new Map(chapters.map((chapter) => [chapter, chapter.open]));
  const show = (standing) => {
    let matches = 0;
    for (const chapter of chapters) {
      let inside = 0;
      for (const clause of all(".clause", chapter)) {
        clause.hidden = standing !== "" && clause.dataset.standing !== standing;
        inside += clause.hidden ? 0 : 1;
      }
      chapter.hidden = inside === 0;
      chapter.open = standing === "" ? initially.get(chapter) : inside > 0;
      matches += inside;
    }
    nothing.hidden = matches > 0;
    for (const button of all("[data-filter]", filters)) {
      button.setAttribute("aria-pressed", String(button.dataset.filter === standing));
    }
  };
  filters.hidden = false;
  for (const control of all("[data-filter]")) {
    control.addEventListener("click", () => show(control.dataset.filter));
  }
  const unfold = filters.querySelector(".unfold");
  unfold.addEventListener("click", () => {
    const open = unfold.getAttribute("aria-pressed") !== "true";
    unfold.setAttribute("aria-pressed", String(open));
    unfold.textContent = open ? "fold all" : "unfold all";
    for (const box of all(".chapter, .clause")) box.open = open;
  });

  // A link to a clause unfolds it, and shows it when a filter hides it.
  const reveal = () => {
    let name = location.hash.slice(1);
    try { name = decodeURIComponent(name); } catch { return; }
    const target = name && document.getElementById(name);
    if (!target) return;
    if (target.closest("[hidden]")) show("");
    for (let box = target; box; box = box.parentElement) if (box.tagName === "DETAILS") box.open = true;
    const inner = target.querySelector(":scope > details");
    if (inner) inner.open = true;
    target.scrollIntoView({ block: "start", behavior: "instant" });
  };
  addEventListener("hashchange", reveal);
  reveal();

  // Paper cannot be unfolded: it gets every finding and every chapter, its clauses in a line each.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all(".finding details:not([open]), .chapter:not([open])");
    for (const box of folded) box.open = true;
  });
  addEventListener("afterprint", () => {
    for (const box of folded) box.open = false;
  });
})();
