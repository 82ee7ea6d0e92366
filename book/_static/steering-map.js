// Lets a reader choose a cell of a steering sweep: its rates and what the model said there. Without this file the tables
// of rates are there.
document.addEventListener("DOMContentLoaded", () => {
  for (const root of document.querySelectorAll(".em-cells")) begin(root);

  function begin(root) {
    const { cells, questions, kinds } = JSON.parse(root.querySelector("script").textContent);
    const tables = [...root.querySelectorAll("table")];
    const panel = root.querySelector(".em-cell");
    let chosen;

    for (const place of root.querySelectorAll("[data-cell]")) {
      const one = cells[place.dataset.cell];
      const button = make("button", place.textContent);
      button.type = "button";
      button.tabIndex = one.best ? 0 : -1;
      button.setAttribute("aria-label", `Layer ${one.layer}, strength ${one.strength}: ${Math.round(one.em)} % EM`);
      button.addEventListener("click", () => choose(place));
      button.addEventListener("focus", () => choose(place));
      place.addEventListener("pointerenter", () => show(one));
      if (one.best) place.classList.add("em-best");
      place.replaceChildren(button);
    }
    for (const table of tables) {
      table.addEventListener("pointerleave", () => show(cells[chosen.dataset.cell]));
      table.addEventListener("keydown", move);
    }
    const choice = make("p", "");
    choice.className = "em-directions";
    choice.setAttribute("role", "group");
    choice.setAttribute("aria-label", "Direction");
    for (const table of tables) {
      const button = make("button", table.dataset.direction);
      button.type = "button";
      button.addEventListener("click", () => open(table));
      choice.append(button);
    }
    root.prepend(choice);
    panel.hidden = false;
    open(tables[0]);

    function open(table) {
      tables.forEach((one, at) => {
        one.parentElement.hidden = one !== table;
        choice.children[at].setAttribute("aria-pressed", String(one === table));
      });
      choose(table.querySelector(".em-best") || table.querySelector("[data-cell]"));
    }

    function choose(place) {
      for (const [one, on] of [[chosen, false], [place, true]]) {
        one?.classList.toggle("em-chosen", on);
        if (one) one.firstChild.tabIndex = on ? 0 : -1;
      }
      chosen = place;
      show(cells[place.dataset.cell]);
    }

    function move(event) {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!step) return;
      event.preventDefault();
      const row = event.target.closest("tr");
      const next = row.parentElement.rows[row.sectionRowIndex + step[0]]?.cells[chosen.cellIndex + step[1]];
      next?.querySelector("button")?.focus();
    }

    function show(one) {
      const rate = (name) => `${Math.round(one[name])} % (${Math.round(one[`${name}_low`])} to ${Math.round(one[`${name}_high`])})`;
      const where = `Layer ${one.layer}, λ = ${one.strength}, ${one.relative_strength.toFixed(2)} residual lengths`;
      const rates = `EM ${rate("em")}, EM on topic ${rate("em_on_topic")}, coherent ${rate("coherent")}; ${one.n} answers`;
      panel.replaceChildren(make("strong", where), make("p", rates), ...one.answers.map(answer));
    }

    function answer([asked, text]) {
      const part = make("figure", "");
      part.className = "em-answer";
      const said = make("blockquote", "");
      for (const word of text.split(/\s+/)) said.append(word in kinds ? mark(word) : word, " ");
      part.append(make("figcaption", `Asked “${questions[asked]}”`), said);
      return part;
    }

    function mark(word) {
      const found = make("mark", word);
      found.className = `em-${kinds[word]}`;
      return found;
    }
  }

  function make(name, text) {
    const one = document.createElement(name);
    one.textContent = text;
    return one;
  }
});
