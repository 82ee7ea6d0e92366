// Makes <table id="ledger"> sortable and filterable, and lets it, every table of measured claims and every table of
// prose turn into cards on a narrow screen. Without this file they are plain, complete tables.
(() => {
  "use strict";
  const ORDER = [
    "supported", "contradicted", "reproduced", "same direction", "undecided", "differs", "not tested", "not run", "not testable here",
    "not testable with this evidence",
  ];
  const UNTESTABLE = ORDER.at(-1);

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

  // --- order --------------------------------------------------------------------------------------------------------

  // "2" < "3.1" < "3.10" < "C"; "-24 %" by its number; anything without a number by its letters, after the numbers.
  function key(cell) {
    const text = (cell.dataset.sort || cell.textContent).trim().replaceAll("−", "-").replaceAll(",", "");
    const number = /[-+]?\d+(?:\.\d+)*/.exec(text);
    if (!number) return { numbers: [Infinity], text };
    return { numbers: number[0].split(".").length > 2 ? number[0].split(".").map(Number) : [Number(number[0])], text };
  }

  function sectionKey(text) {
    const parts = text.split(".");
    return { numbers: /^\d/.test(text) ? parts.map(Number) : [Infinity], text };
  }

  function compare(a, b) {
    for (let i = 0; i < Math.max(a.numbers.length, b.numbers.length); i += 1) {
      const difference = (a.numbers[i] ?? -Infinity) - (b.numbers[i] ?? -Infinity);
      if (difference) return difference;
    }
    return a.text.localeCompare(b.text, "en", { numeric: true });
  }

  function rowKey(row, column, name, evidence) {
    if (evidence.shown.includes(name)) return { numbers: [ORDER.indexOf(verdict(row, name))], text: "" };
    if (name === "section") return sectionKey(row.dataset.section);
    if (name === "claim" || name === "prediction") return { numbers: [0], text: row.cells[column].textContent.trim() };
    return key(row.cells[column]);
  }

  const verdict = (row, evidence) => row.getAttribute(`data-verdict-${evidence}`);

  function makeSortable(table, rows, evidence) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const name = head.textContent.trim().toLowerCase();
      const button = make("button", { type: "button", className: "em-sort" }, ...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const ascending = head.getAttribute("aria-sort") !== "ascending";
        for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        const keyed = rows.map((row, place) => ({ row, place, key: rowKey(row, column, name, evidence) }));
        keyed.sort((a, b) => (ascending ? 1 : -1) * compare(a.key, b.key) || a.place - b.place);
        table.tBodies[0].append(...keyed.map((one) => one.row));
      });
    });
  }

  // --- cards on a narrow screen -------------------------------------------------------------------------------------

  // The style sheet lays the cells out one below the other; names and roles keep what the columns said.
  const isProse = (table) => table.tHead?.rows[0]?.cells.length > 2 &&
    [...table.tBodies[0].rows].some((row) => [...row.cells].filter((cell) => cell.textContent.length > 25).length > 1);

  function nameCells(table) {
    const names = [...table.tHead.rows[0].cells].map((head) => head.textContent.trim());
    table.classList.add("em-cards");
    table.setAttribute("role", "table");
    for (const part of [table.tHead, ...table.tBodies]) part.setAttribute("role", "rowgroup");
    for (const head of table.tHead.rows[0].cells) head.setAttribute("role", "columnheader");
    for (const row of table.rows) row.setAttribute("role", "row");
    for (const row of table.tBodies[0].rows) {
      [...row.cells].forEach((cell, column) => {
        cell.setAttribute("role", "cell");
        cell.dataset.label = names[column];
      });
    }
  }

  // --- filters ------------------------------------------------------------------------------------------------------

  function field(label, control) {
    return make("p", { className: "em-field" }, make("label", { htmlFor: control.id, textContent: label }), control);
  }

  function select(id, first, options) {
    const control = make("select", { id });
    control.append(new Option(first, ""), ...options.map(([text, value]) => new Option(text, value)));
    return control;
  }

  // All kinds of evidence the rows know, and those that have a column.
  function evidenceOf(table, rows) {
    const all = [...new Set(rows.flatMap((row) => row.getAttributeNames()))]
      .filter((name) => name.startsWith("data-verdict-")).map((name) => name.slice("data-verdict-".length));
    const heads = [...table.tHead.rows[0].cells].map((head) => head.textContent.trim().toLowerCase());
    return { all, shown: all.filter((name) => heads.includes(name)), what: heads[1] };
  }

  function makeControls(rows, evidence) {
    const sections = [...new Set(rows.map((row) => row.dataset.section))].sort((a, b) => compare(sectionKey(a), sectionKey(b)));
    const found = ORDER.filter((one) => rows.some((row) => evidence.all.some((name) => verdict(row, name) === one)));
    const title = (section) => section === "ours" ? "This book's own" : (/^\d/.test(section) ? `Section ${section}` : `${/\d/.test(section) ? "Experiment" : "Appendix"} ${section}`);
    return {
      section: select("ledger-section", "All", sections.map((one) => [title(one), one])),
      evidence: select("ledger-evidence", "Any", evidence.all.map((one) => [capital(one), one])),
      verdict: select("ledger-verdict", "Any", found.map((one) => [capital(one), one])),
      text: make("input", { id: "ledger-text", type: "search", spellcheck: false }),
    };
  }

  function fits(row, controls, evidence) {
    const words = controls.text.value.trim().toLowerCase();
    const names = controls.evidence.value ? [controls.evidence.value] : evidence.shown;
    const wanted = controls.verdict.value;
    const judged = (name) => (wanted ? verdict(row, name) === wanted : verdict(row, name) !== UNTESTABLE);
    return (!controls.section.value || row.dataset.section === controls.section.value)
      && ((!wanted && !controls.evidence.value) || names.some(judged))
      && (!words || `${row.id} ${row.textContent}`.toLowerCase().includes(words));
  }

  function enhance(table) {
    const rows = [...table.tBodies[0].rows];
    const evidence = evidenceOf(table, rows);
    const controls = makeControls(rows, evidence);
    const count = make("span", { id: "ledger-count" });
    count.setAttribute("role", "status");
    count.setAttribute("aria-live", "polite");
    const reset = make("button", { type: "button", id: "ledger-reset", textContent: "Reset filters" });

    const apply = () => {
      for (const row of rows) row.hidden = !fits(row, controls, evidence);
      const left = rows.filter((row) => !row.hidden).length;
      count.textContent = `${left === rows.length ? "" : `${left} of `}${rows.length} ${evidence.what}s`;
      reset.hidden = left === rows.length;
    };
    const clear = () => {
      for (const control of Object.values(controls)) control.value = "";
      apply();
    };
    const follow = () => {
      const row = rows.find((one) => one.id === decodeURIComponent(location.hash.slice(1)));
      for (const one of rows) one.classList.toggle("em-aim", one === row);
      if (!row) return;
      clear();
      row.scrollIntoView({ block: "center" });
    };

    const form = make("form", { className: "em-controls em-ledger-controls", autocomplete: "off" },
      make("div", { className: "em-fields" }, field("Section", controls.section), field("Evidence", controls.evidence),
        field("Verdict", controls.verdict), field("Words", controls.text)),
      make("p", { className: "em-result" }, count, " ", reset));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", apply);
    reset.addEventListener("click", () => { clear(); controls.section.focus(); });

    makeSortable(table, rows, evidence);
    const wrapper = table.closest(".em-ledger") || table;
    wrapper.before(form);
    wrapper.tabIndex = 0;
    wrapper.setAttribute("role", "region");
    wrapper.setAttribute("aria-label", `${capital(evidence.what)}s ledger`);
    apply();
    follow();
    addEventListener("hashchange", follow);
    // Late images and fonts move the page after the first scroll.
    addEventListener("load", follow, { once: true });
  }

  function begin() {
    document.querySelectorAll("table.em-claims, table#ledger").forEach(nameCells);
    [...document.querySelectorAll("article table:not(.em-cards)")].filter(isProse).forEach(nameCells);
    const table = document.getElementById("ledger");
    if (table && !table.dataset.ready) {
      table.dataset.ready = "yes";
      enhance(table);
    }
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
