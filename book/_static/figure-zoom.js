// A figure opens enlarged over the page; without this file its link leads to the picture alone.
document.addEventListener("DOMContentLoaded", () => {
  const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
  const dialog = make("dialog", { className: "em-zoom", ariaLabel: "Figure, enlarged" });
  const picture = make("img", { alt: "" });
  const close = make("button", { type: "button", textContent: "Close" });
  dialog.append(close, picture);
  document.body.append(dialog);
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  for (const shown of document.querySelectorAll("a > img.em-figure")) {
    shown.parentElement.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // to be opened elsewhere
      event.preventDefault();
      Object.assign(picture, { src: shown.parentElement.href, alt: shown.alt });
      dialog.showModal();
    });
  }
});
