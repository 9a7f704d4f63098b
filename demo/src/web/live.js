// Keeps what is shown up to date: asks for the page's living part, which is answered when it is another than the one that
// is shown, and puts it in place. Without this script everything works; the page has to be loaded again then.
"use strict";

const live = document.getElementById("live");

const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

async function refresh() {
  const answer = await fetch(`${live.dataset.from}?seen=${live.dataset.seen}`, { cache: "no-store" });
  if (answer.status === 204) return; // nothing new in all that time
  if (!answer.ok) throw new Error(`${answer.status}`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById("live");
  live.replaceChildren(...fresh.childNodes);
  live.dataset.seen = fresh.dataset.seen;
}

async function follow() {
  for (;;) {
    try {
      await refresh();
    } catch {
      await pause(2);
    }
  }
}

if (live) follow();
