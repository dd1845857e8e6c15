// A field that hides the entries without the words typed into it. All is there without it.
(() => {
  const section = document.getElementById("queries");
  const entries = [...section.querySelectorAll(".entry")];
  const words = entries.map((entry) => entry.textContent.toLowerCase());
  const filter = document.createElement("p");
  const label = document.createElement("label");
  const field = document.createElement("input");
  const count = document.createElement("span");
  filter.className = "filter";
  filter.setAttribute("role", "search");
  label.append("Show only entries with ", field);
  field.type = "search";
  count.setAttribute("aria-live", "polite");
  filter.append(label, count);
  section.querySelector(".gallery")?.before(filter);
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    entries.forEach((entry, number) => {
      entry.hidden = !wanted.every((word) => words[number].includes(word));
    });
    const left = entries.filter((entry) => !entry.hidden).length;
    count.textContent = wanted.length ? `${left} of ${entries.length}` : "";
  });
})();
