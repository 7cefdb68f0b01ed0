// Progressive help on top of pages that work without it: copy buttons and suggestions below a search box.
"use strict";

function addCopyButtons() {
  if (!navigator.clipboard) return;
  for (const box of document.querySelectorAll(".copyable:not(:has(.copy))")) {
    const source = box.querySelector("[data-copy], pre, code");
    if (!source) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.setAttribute("aria-label", `Copy ${box.dataset.label || "this text"}`);
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(source.dataset.copy || source.textContent.trim());
      button.textContent = "Copied";
      announce("Copied");
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
    box.append(button);
  }
}

let live = null;
function announce(text) {
  if (!live) {
    live = document.createElement("p");
    live.className = "hidden";
    live.setAttribute("role", "status");
    document.body.append(live);
  }
  live.textContent = text;
}

// A combobox as the ARIA Authoring Practices describe it: the list below follows what is typed.
function addSuggestions(input) {
  const list = document.createElement("ul");
  list.id = `${input.id}-list`;
  list.className = "suggestions";
  list.hidden = true;
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Suggestions");
  input.parentElement.append(list);
  input.setAttribute("role", "combobox");
  input.setAttribute("aria-autocomplete", "list");
  input.setAttribute("aria-expanded", "false");
  input.setAttribute("aria-controls", list.id);
  let active = -1;
  let waiting = 0;
  let asked = 0;

  const close = () => {
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const mark = (index) => {
    active = index;
    [...list.children].forEach((option, at) => {
      option.setAttribute("aria-selected", String(at === index));
      option.classList.toggle("active", at === index);
      if (at === index) {
        input.setAttribute("aria-activedescendant", option.id);
        option.scrollIntoView({ block: "nearest" });
      }
    });
    if (index < 0) input.removeAttribute("aria-activedescendant");
  };
  const show = (results) => {
    list.replaceChildren(...results.map((result, at) => {
      const option = document.createElement("li");
      option.id = `${list.id}-${at}`;
      option.setAttribute("role", "option");
      option.setAttribute("aria-selected", "false");
      const query = result.model ? `?${new URLSearchParams({ model: result.model })}` : "";
      option.dataset.href = result.href || `${input.dataset.page}/${result.library}/${encodeURIComponent(result.name)}${query}`;
      const reason = document.createElement("small");
      reason.textContent = `${result.library}, ${result.because}`;
      option.append(result.model ? `${result.name} for ${result.model}` : result.name, reason);
      option.addEventListener("mousedown", (event) => event.preventDefault());
      option.addEventListener("click", () => { location.href = option.dataset.href; });
      return option;
    }));
    list.hidden = results.length === 0;
    input.setAttribute("aria-expanded", String(!list.hidden));
    mark(-1);
    announce(results.length ? `${results.length} suggestions` : "No suggestions");
  };
  const ask = async () => {
    const number = ++asked;
    const text = input.value.trim();
    if (text.length < 2 || text.length > 400) return close();
    try {
      if (self.loradarSearch) {  // a site of files has its own
        const found = await self.loradarSearch(text);
        if (number === asked && document.activeElement === input) show(found);
        return;
      }
      const response = await fetch(`${input.dataset.suggest}?limit=8&q=${encodeURIComponent(text)}`, { headers: { Accept: "application/json" } });
      if (!response.ok || number !== asked) return;
      const { results } = await response.json();
      if (number === asked && document.activeElement === input) show(results);
    } catch { close(); }
  };
  input.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(ask, 120); });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const count = list.children.length;
    if (event.key === "Escape" && !list.hidden) { event.preventDefault(); close(); return; }
    if (list.hidden || !count) return;
    if (event.key === "ArrowDown") { event.preventDefault(); mark(active + 1 >= count ? 0 : active + 1); }
    else if (event.key === "ArrowUp") { event.preventDefault(); mark(active <= 0 ? count - 1 : active - 1); }
    else if (event.key === "Enter" && active >= 0) { event.preventDefault(); location.href = list.children[active].dataset.href; }
  });
}

// On a narrow screen the navigation scrolls sideways: the current page is shown, and the page itself stays where it is.
function showCurrentPage() {
  const current = document.querySelector(".nav [aria-current]");
  const bar = current?.closest(".nav");
  if (!bar) return;
  const [own, all] = [current.getBoundingClientRect(), bar.getBoundingClientRect()];
  bar.scrollLeft += own.left - all.left - (all.width - own.width) / 2;
}

showCurrentPage();
addCopyButtons();
for (const input of document.querySelectorAll("input[data-suggest]")) addSuggestions(input);

// The rank slider: figures follow at once; the rest of the page, such as the snippets, when it is let go.
function inBytes(size) {
  const units = [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]];
  for (const [power, unit] of units) {
    if (size >= power) {
      const number = size / power;
      return `${number >= 100 ? Math.round(number).toLocaleString("en") : number.toFixed(1)} ${unit}`;
    }
  }
  return `${Math.round(size)} bytes`;
}

function addRank(form) {
  const slider = form.querySelector("input[type=range]");
  if (!slider) return;
  const [perRank, fixed, base] = ["perRank", "fixed", "base"].map((name) => Number(form.dataset[name]));
  const put = (name, text) => { const at = form.querySelector(`[data-${name}]`); if (at) at.textContent = text; };
  slider.addEventListener("input", () => {
    const rank = Number(slider.value);
    put("rank", rank);
    if (!form.dataset.linear) return;
    const parameters = rank * perRank + fixed;
    put("parameters", parameters.toLocaleString("en"));
    put("file", inBytes(parameters * 4));
    put("training", inBytes(parameters * 16));
    if (base) put("share", Number((100 * parameters / base).toPrecision(3)));
  });
  slider.addEventListener("change", () => showRank(form));
}

async function showRank(form) {
  const url = `${form.getAttribute("action")}?${new URLSearchParams(new FormData(form))}`;
  const response = await fetch(url, { headers: { Accept: "text/html" } });
  if (!response.ok) { location.href = url; return; }
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const chosen = document.querySelector(".tabs > input:checked")?.id;
  for (const name of [".rank .figures", ".tabs", ".choices"]) {
    const [now, then] = [document.querySelector(name), page.querySelector(name)];
    if (now && then) now.replaceWith(document.adoptNode(then));
  }
  if (chosen) { const tab = document.getElementById(chosen); if (tab) tab.checked = true; }
  addCopyButtons();
  history.replaceState(null, "", url);
}

for (const form of document.querySelectorAll("form.rank")) addRank(form);

// The shapes of the layers, which no record holds: the service builds the model without weights and tells them.
async function showShapes(form) {
  const [button, status] = [form.querySelector("button"), form.querySelector("[role=status]")];
  button.disabled = true;
  status.textContent = "Building the model …";
  try {
    const response = await fetch(form.dataset.scan, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body: JSON.stringify({ reference: form.elements.reference.value }),
    });
    const scan = await response.json();
    if (!response.ok) throw new Error(scan.error.message);
    fillShapes(scan.layers);
    status.textContent = `The shapes of ${scan.layers.length.toLocaleString("en")} layers, as their weights are stored.`;
  } catch (error) {
    status.textContent = `No shapes: ${error.message}`;
    button.disabled = false;
  }
}

function fillShapes(layers) {
  const open = (path) => path.replace(/\d+/g, "*");
  const found = new Map();
  for (const layer of layers) {
    const key = open(layer.path);
    found.set(key, [...(found.get(key) || []), layer]);
  }
  for (const leaf of document.querySelectorAll(".leaf")) {
    const pattern = leaf.dataset.path.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&")).join("\\d+");
    const own = (found.get(open(leaf.dataset.path)) || []).filter((layer) => new RegExp(`^${pattern}$`).test(layer.path));
    if (!own.length) continue;
    const shapes = [...new Set(own.map((layer) => layer.shape.map((size) => size.toLocaleString("en")).join(" × ")))];
    const tied = own.find((layer) => layer.tied_to);
    const text = document.createElement("span");
    text.className = "soft small numeric";
    text.textContent = `[${shapes.slice(0, 2).join("], [")}]${shapes.length > 2 ? ` and ${shapes.length - 2} more` : ""}${tied ? `, tied to ${tied.tied_to}` : ""}`;
    leaf.append(text);
  }
}

for (const form of document.querySelectorAll("form.shapes")) {
  form.addEventListener("submit", (event) => { event.preventDefault(); showShapes(form); });
}
