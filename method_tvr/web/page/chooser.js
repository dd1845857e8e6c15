// Cards are plain HTML: clicks, Enter and Space on one of them become an event with its number.
const chosen = (event) => {
  const card = event.target.closest("[data-number]");
  if (!card || (event.type === "keydown" && event.key !== "Enter" && event.key !== " ")) return;
  event.preventDefault();
  for (const other of element.querySelectorAll("[data-number]")) other.setAttribute("aria-selected", other === card);
  trigger("select", { number: Number(card.dataset.number) });
};
element.addEventListener("click", chosen);
element.addEventListener("keydown", chosen);
// a picture that cannot be had shows nothing
element.addEventListener("error", (event) => event.target.matches("img.thumbnail") && event.target.remove(), true);
