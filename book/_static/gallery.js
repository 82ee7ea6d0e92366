// Filters the cards of the gallery by evidence and words. Without this file all of them are there.
document.addEventListener("DOMContentLoaded", () => {
  const [form, evidence, text, count] = ["filter", "evidence", "text", "count"]
    .map((name) => document.getElementById(`gallery-${name}`));
  if (!form) return;
  const sections = [...document.querySelectorAll("section")].filter((one) => one.querySelector(":scope > .em-gallery"));
  const cards = [...document.querySelectorAll(".em-card")];
  const said = (card) => `${card.closest("section").firstElementChild.textContent} ${card.textContent}`.toLowerCase();
  const apply = () => {
    const words = text.value.trim().toLowerCase();
    for (const card of cards) {
      card.hidden = (evidence.value && card.dataset.evidence !== evidence.value) || !said(card).includes(words);
    }
    for (const section of sections) section.hidden = !section.querySelector(".em-card:not([hidden])");
    const left = cards.filter((card) => !card.hidden).length;
    count.textContent = left === cards.length ? `${left} figures` : `${left} of ${cards.length} figures`;
  };
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", apply);
  apply();
});
