// Read the headers of chosen files here, so that no weight leaves the browser, and take files that are dropped.
"use strict";

(() => {
  const form = document.querySelector("form.scan");
  const input = form.querySelector("input[type=file]");
  const drop = form.querySelector(".drop");
  const list = form.querySelector(".chosen");
  const button = form.querySelector("button.primary");
  const most = Number(form.dataset.most);
  const decoder = new TextDecoder();
  const SCALARS = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };
  const STRING = 8;
  const ARRAY = 9;
  const STEP = 1 << 20;
  const MOST_HEADER = 64 << 20;
  let isOurs = false;

  const size = (bytes) => (bytes < 1024 ? `${bytes} bytes` : bytes < STEP ? `${Math.round(bytes / 1024)} KiB` : `${(bytes / STEP).toFixed(1)} MiB`);

  /** The bytes of a file, fetched as far as they are needed. */
  class Cursor {
    constructor(file) {
      this.file = file;
      this.bytes = new Uint8Array(0);
      this.place = 0;
    }

    async take(length) {
      const end = this.place + length;
      if (end > MOST_HEADER) throw new Error("its header is longer than any that is read");
      if (end > this.bytes.length) {
        const upTo = Math.min(this.file.size, Math.max(end, this.bytes.length + STEP));
        if (upTo < end) throw new Error("it ends inside its header");
        const more = new Uint8Array(await this.file.slice(this.bytes.length, upTo).arrayBuffer());
        const both = new Uint8Array(this.bytes.length + more.length);
        both.set(this.bytes);
        both.set(more, this.bytes.length);
        this.bytes = both;
      }
      const view = new DataView(this.bytes.buffer, this.place, length);
      this.place = end;
      return view;
    }

    async count() {
      return Number((await this.take(8)).getBigUint64(0, true));
    }

    async number() {
      return (await this.take(4)).getUint32(0, true);
    }

    async text() {
      await this.take(await this.count());
    }
  }

  /** The header of a GGUF file without its lists, such as the vocabulary: these are most of it, and are not needed. */
  async function cutGguf(file) {
    const cursor = new Cursor(file);
    const head = await cursor.take(24);
    const tensors = Number(head.getBigUint64(8, true));
    const fields = Number(head.getBigUint64(16, true));
    const kept = [];
    for (let field = 0; field < fields; field++) {
      const start = cursor.place;
      await cursor.text();
      const kind = await cursor.number();
      if (kind === ARRAY) {
        const of = await cursor.number();
        const length = await cursor.count();
        if (of === STRING) for (let item = 0; item < length; item++) await cursor.text();
        else if (of in SCALARS) await cursor.take(length * SCALARS[of]);
        else throw new Error("it has a list of an unknown type");
      } else {
        if (kind === STRING) await cursor.text();
        else if (kind in SCALARS) await cursor.take(SCALARS[kind]);
        else throw new Error("it has a field of an unknown type");
        kept.push([start, cursor.place]);
      }
    }
    const start = cursor.place;
    for (let tensor = 0; tensor < tensors; tensor++) {
      await cursor.text();
      const sides = await cursor.number();
      await cursor.take(8 * sides + 12);
    }
    const first = cursor.bytes.slice(0, 24);
    new DataView(first.buffer).setBigUint64(16, BigInt(kept.length), true);
    return [first, ...kept.map(([from, to]) => cursor.bytes.slice(from, to)), cursor.bytes.slice(start, cursor.place)];
  }

  /** The part of a file that says what the model is: all of JSON, of weights the header. */
  async function cut(file) {
    const start = new Uint8Array(await file.slice(0, 9).arrayBuffer());
    if (decoder.decode(start.slice(0, 4)) === "GGUF") return new File(await cutGguf(file), file.name);
    if (start.length === 9 && start[8] === 0x7b) {
      const length = Number(new DataView(start.buffer).getBigUint64(0, true));
      if (length <= MOST_HEADER) return new File([file.slice(0, 8 + length)], file.name);
    }
    return file;
  }

  function tell(text, isProblem) {
    const item = document.createElement("li");
    item.textContent = text;
    if (isProblem) item.className = "problem";
    list.append(item);
  }

  async function choose(files) {
    list.replaceChildren();
    button.disabled = true;
    const chosen = new DataTransfer();
    let sum = 0;
    for (const file of files) {
      try {
        const part = await cut(file);
        sum += part.size;
        chosen.items.add(part);
        tell(part.size < file.size ? `${file.name}: ${size(part.size)} of ${size(file.size)} are sent` : `${file.name}: ${size(file.size)}`, false);
      } catch (error) {
        tell(`${file.name} is left out: ${error.message}.`, true);
      }
    }
    if (sum > most) tell(`Together these are ${size(sum)}; ${size(most)} are taken.`, true);
    isOurs = true;
    input.files = chosen.files;
    isOurs = false;
    button.disabled = false;
  }

  input.addEventListener("change", () => {
    if (!isOurs) choose([...input.files]);
  });
  for (const name of ["dragenter", "dragover"]) {
    form.addEventListener(name, (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) form.addEventListener(name, () => drop.classList.remove("over"));
  form.addEventListener("drop", (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    choose([...event.dataTransfer.files]);
  });
  form.addEventListener("submit", () => {
    form.querySelector("[data-working]").hidden = false;
  });
})();
