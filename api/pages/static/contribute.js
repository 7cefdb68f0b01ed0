// Shows what each name matches as it is typed: the form is sent as the button "Preview" sends it, and the part of the page
// with the preview is put in the place of the one here.
"use strict";

const form = document.getElementById("statement");
let waiting = 0;
let asked = 0;
let last = "";

async function preview() {
  const fields = new URLSearchParams(new FormData(form));
  const text = fields.toString();
  if (text === last) return;
  last = text;
  const number = ++asked;
  try {
    const response = await fetch(form.dataset.preview, { method: "POST", body: fields, headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const made = page.getElementById("preview");
    if (number !== asked || !made) return;
    const problem = page.getElementById("problem");
    if (problem) {
      problem.removeAttribute("id");
      problem.removeAttribute("role");
      made.append(problem);
    }
    document.getElementById("preview").replaceChildren(...made.childNodes);
  } catch {
    last = "";  // the service is away; the next key tries again
  }
}

form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(preview, 250); });
