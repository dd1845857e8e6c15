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
// A picture that cannot be had, because others are made or its video is damaged, is asked for once more, then left out.
const AGAIN_MS = 2000;
const ask_again = (event) => {
  const picture = event.target;
  if (!picture.matches("img.thumbnail")) return;
  if (picture.dataset.again) return picture.remove();
  picture.dataset.again = "yes";
  setTimeout(() => { picture.src = picture.src; }, AGAIN_MS);
};
element.addEventListener("error", ask_again, true);
