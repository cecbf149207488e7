"use strict";
/* Shows the entries whose kind is ticked and whose text has what is typed. Without scripts, all are shown. */
const form = document.querySelector("form");
if (form) {
  form.hidden = false;
  const entries = [...document.querySelectorAll("[data-kind]")];
  const count = document.querySelector("output");
  const show = () => {
    const kinds = new Set([...form.querySelectorAll("input:checked")].map(box => box.value));
    const wanted = form.querySelector("input[type=search]").value.toLowerCase();
    let shown = 0;
    for (const entry of entries) {
      entry.hidden = !kinds.has(entry.dataset.kind) || !entry.dataset.text.includes(wanted);
      shown += !entry.hidden;
    }
    count.textContent = `${shown} of ${entries.length} shown`;
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", event => event.preventDefault());
  show();
}
