"use strict";
// What a page cannot do by itself: calls as they end, copying a secret, asking before a change.

const ROWS_MAX = 200;

function watchCalls(body) {
  const state = document.getElementById("live-state");
  const toggle = document.getElementById("live-toggle");
  const announce = document.getElementById("announce");
  let source = null;
  let arrived = 0;

  const say = (text, on) => {
    state.textContent = text;
    state.classList.toggle("on", on);
  };

  const add = (event) => {
    const holder = document.createElement("template");
    holder.innerHTML = event.data; // made by our own templates, which escape every value
    const row = holder.content.firstElementChild;
    if (row === null || document.getElementById(row.id) !== null) return;
    row.classList.add("new");
    body.prepend(row);
    while (body.rows.length > ROWS_MAX) body.lastElementChild.remove();
    const none = document.getElementById("no-calls");
    if (none !== null) none.remove();
    arrived += 1;
  };

  const start = () => {
    source = new EventSource(body.dataset.feed);
    source.addEventListener("open", () => say("live", true));
    source.addEventListener("call", add);
    source.addEventListener("outage", () => say("the ledger is out of reach", false));
    source.addEventListener("over", () => stop("ended: load the page again"));
    source.addEventListener("error", () => {
      if (source !== null && source.readyState === EventSource.CLOSED) stop("not connected: load the page again");
      else say("connecting…", false);
    });
  };

  const stop = (text) => {
    if (source !== null) source.close();
    source = null;
    say(text, false);
  };

  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    const paused = source !== null;
    if (paused) stop("paused");
    else start();
    toggle.setAttribute("aria-pressed", String(paused));
    toggle.textContent = paused ? "Go on" : "Pause";
  });
  // Not each of them: a sentence now and then.
  setInterval(() => {
    if (arrived > 0) announce.textContent = `${arrived} new ${arrived === 1 ? "call" : "calls"}`;
    arrived = 0;
  }, 5000);
  addEventListener("pagehide", () => stop("paused"));
  addEventListener("pageshow", (event) => { if (event.persisted) start(); });
  start();
}

async function copy(button) {
  const from = document.querySelector(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(from.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(from);
    button.textContent = "Press Ctrl+C";
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button !== null) copy(button);
});
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question !== undefined && !confirm(question)) event.preventDefault();
});
const feed = document.querySelector("[data-feed]");
if (feed !== null) watchCalls(feed);
