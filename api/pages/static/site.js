// Search in a site of files: from an index that is loaded when it is first needed, also from a folder.
"use strict";

(() => {
  const root = document.currentScript.dataset.root;
  const MOST = 8;
  let index = null;

  const plain = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "");

  function load() {
    if (index) return index;
    index = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `${root}search-index.js`;
      script.onload = () => resolve(self.loradarIndex.map(([library, name, ...others]) => ({
        library, name, names: [name, ...others].map((each) => [each, plain(each)]),
      })));
      script.onerror = reject;
      document.head.append(script);
    });
    return index;
  }

  function score(entry, key) {
    let best = null;
    for (const [written, own] of entry.names) {
      if (!own) continue;
      const at = own.indexOf(key);
      if (at < 0) continue;
      const points = own === key ? 3 : at === 0 ? 2 : 1;
      const exact = written === entry.name ? 0.5 : 0;
      if (!best || points + exact > best.points) best = { points: points + exact, written };
    }
    return best;
  }

  self.loradarSearch = async (text, most = MOST) => {
    const key = plain(text.replace(/^https?:\/\/(www\.)?(huggingface\.co|hf\.co)\//, ""));
    if (key.length < 2) return [];
    const order = { transformers: 0, diffusers: 1, timm: 2 };
    return (await load())
      .map((entry) => ({ entry, found: score(entry, key) }))
      .filter(({ found }) => found)
      .sort((one, other) => other.found.points - one.found.points || (order[one.entry.library] ?? 3) - (order[other.entry.library] ?? 3) || one.entry.name.length - other.entry.name.length)
      .slice(0, most)
      .map(({ entry, found }) => ({
        library: entry.library,
        name: entry.name,
        because: found.written === entry.name ? "its name" : found.written,
        href: `${root}architectures/${encodeURIComponent(entry.library)}/${encodeURIComponent(entry.name)}.html`,
      }));
  };

  // The page of a search: its results are found here.
  document.addEventListener("DOMContentLoaded", async () => {
    const text = new URLSearchParams(location.search).get("q");
    if (!text || !location.pathname.endsWith("search/index.html")) return;
    for (const input of document.querySelectorAll("input[name=q]")) input.value = text;
    const main = document.querySelector("main");
    const heading = document.createElement("h1");
    heading.textContent = `Search: ${text}`;
    const list = document.createElement("ul");
    const results = await self.loradarSearch(text, 50);
    list.append(...results.map((result) => {
      const item = document.createElement("li");
      const link = document.createElement("a");
      link.href = result.href;
      link.textContent = result.name;
      item.append(link, ` ${result.library}, ${result.because}`);
      return item;
    }));
    const none = document.createElement("p");
    none.textContent = "No architecture has this name.";
    main.replaceChildren(heading, results.length ? list : none);
  });
})();
