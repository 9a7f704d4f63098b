// Keeps the living parts of a page up to date: asks for the page anew and puts those parts in place that have changed. What
// somebody is just using is left alone. Without this script everything works; such pages load themselves again then.
"use strict";

const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

async function refresh() {
  const answer = await fetch(location.href, { cache: "no-store" });
  if (answer.redirected) return location.reload(); // logged out meanwhile
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(part.id);
    if (!fresh) return location.reload(); // another page by now
    const isUsed = part.contains(document.activeElement) || getSelection().containsNode(part, true) && !getSelection().isCollapsed;
    if (!isUsed && part.innerHTML !== fresh.innerHTML) part.replaceWith(document.adoptNode(fresh));
  }
  document.querySelector("footer").replaceWith(document.adoptNode(page.querySelector("footer")));
  document.body.dataset.every = page.body.dataset.every ?? "";
}

async function follow() {
  for (;;) {
    const seconds = Number(document.body.dataset.every);
    if (!seconds) return;
    await pause(seconds);
    if (document.hidden) continue;
    try {
      await refresh();
    } catch {
      // Out of reach: again in a while.
    }
  }
}

follow();

// Selecting the whole list at once.
for (const all of document.querySelectorAll("input[data-all]")) {
  all.hidden = false;
  all.addEventListener("change", () => {
    for (const one of document.querySelectorAll("input[name=id]")) one.checked = all.checked;
  });
}

// "/" goes to the search, as on other pages of this kind.
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input, textarea, select");
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    document.getElementById("q")?.focus();
  }
});
