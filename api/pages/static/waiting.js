// Loads the page of a submission again when its checks are finished.
"use strict";

const note = document.querySelector("[data-waits]");
const started = Date.now();

async function look() {
  try {
    const response = await fetch(note.dataset.waits, { headers: { Accept: "application/json" }, cache: "no-store" });
    if (response.ok && (await response.json()).status !== "checking") {
      location.reload();
      return;
    }
  } catch { /* the service is away: ask again */ }
  // Often at first, then at the pace of long scans.
  setTimeout(look, Date.now() - started < 20000 ? 1000 : 5000);
}

if (note) setTimeout(look, 1000);
