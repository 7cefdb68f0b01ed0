// Adds a search over the table of architectures. The table is whole without it.
document.addEventListener("DOMContentLoaded", () => {
  const table = document.getElementById("architectures");
  if (!table) return;
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, text: row.textContent.toLowerCase() + " " + row.cells[1].firstChild.title.toLowerCase(), library: row.cells[0].textContent.trim() }));
  const form = document.createElement("form");
  form.className = "table-search";
  form.innerHTML = '<label>Search <input type="search" name="q" placeholder="llama, ViT, resnet"></label>' +
    '<label>Library <select name="library"><option value="">all</option></select></label><output aria-live="polite"></output>';
  const [text, library, count] = [form.elements.q, form.elements.library, form.querySelector("output")];
  for (const name of new Set(rows.map((one) => one.library))) library.add(new Option(name));
  const filter = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const one of rows) {
      const fits = (!library.value || one.library === library.value) && words.every((word) => one.text.includes(word));
      one.row.hidden = !fits;
      shown += fits;
    }
    count.value = shown.toLocaleString("en") + " of " + rows.length.toLocaleString("en");
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  table.parentElement.before(form);
  filter();
});
