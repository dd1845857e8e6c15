// A picture that is chosen or dropped is sent; its name becomes an event, and the picture stays here to be seen.
const drop = element.querySelector(".drop");
const said = element.querySelector(".said");
const shown = element.querySelector("img");
const hint = said.textContent;
let address = "";
const show = (file) => {
  URL.revokeObjectURL(address);
  address = file ? URL.createObjectURL(file) : "";
  shown.hidden = !file;
  if (file) shown.src = address;
};
const tell = (text, problem) => {
  said.textContent = text;
  drop.classList.toggle("refused", problem);
};
const ask = async (file) => {
  if (!file) return;
  if (file.size > Number(drop.dataset.most)) return tell(drop.dataset.toolarge, true);
  show(file);
  tell(`looking for ${file.name} …`, false);
  try {
    const headers = { "Content-Type": file.type.startsWith("image/") ? file.type : "image/*" };
    const answer = await fetch(drop.dataset.path, { method: "POST", body: file, headers });
    const content = await answer.json();
    if (!answer.ok) throw new Error(content.error);
    tell(file.name, false);
    trigger("select", { picture: content.picture });
  } catch (error) {
    show(null);
    tell(error.message, true);
  }
};
const input = element.querySelector("input");
input.addEventListener("change", () => {
  ask(input.files[0]);
  input.value = "";  // the same file may be chosen again
});
element.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
element.addEventListener("dragleave", () => drop.classList.remove("over"));
element.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  ask(event.dataTransfer.files[0]);
});
// a sentence that is asked takes its place
const forget = (event) => {
  if (!event.target.closest?.("#sentence, #ask, #examples")) return;
  show(null);
  tell(hint, false);
};
for (const kind of ["input", "click", "keydown"]) document.addEventListener(kind, forget);
