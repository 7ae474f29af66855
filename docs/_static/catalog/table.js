/* The table of what is found: a page of it at a time. */
(() => {
  "use strict";
  const catalog = window.detrexCatalog;
  const PAGE = 50;

  const short = (number, digits) => number.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  catalog.millions = (count) => (count < 1e5 ? short(count / 1e6, 3) : short(count / 1e6, 1));

  const COLUMNS = [
    { name: "name", title: "Architecture" },
    { name: "params", title: "Params (M)", number: true, text: (row) => catalog.millions(row.params) },
    { name: "gflops", title: "GFLOPs", number: true, text: (row) => short(row.gflops, 1) },
    { title: "Strides", text: (row) => row.strides.join(" ") },
    { name: "kind", title: "Kind" },
    { name: "norm", title: "Norm" },
    { name: "sizes", title: "Sizes" },
    { name: "library", title: "Library" },
    { name: "licence", title: "Licence", text: (row) => row.licence || "not stated" },
  ];

  /* Make the head; `sortBy(name)` is called when a column is clicked. */
  catalog.makeHead = (table, sortBy) => {
    for (const column of COLUMNS) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.dataset.column = column.name ?? "strides";
      if (column.number) cell.className = "catalog-number";
      if (column.name) {
        const button = Object.assign(document.createElement("button"), { type: "button", textContent: column.title });
        button.addEventListener("click", () => sortBy(column.name));
        cell.append(button);
      } else cell.textContent = column.title;
      table.tHead.rows[0].append(cell);
    }
  };

  /* Say in the head what the rows are sorted by. */
  catalog.markSorted = (table, sort) => {
    for (const cell of table.tHead.rows[0].cells) {
      if (cell.dataset.column === sort.replace(/^-/, "")) {
        cell.setAttribute("aria-sort", sort.startsWith("-") ? "descending" : "ascending");
      } else cell.removeAttribute("aria-sort");
    }
  };

  /* Show a page of rows; `hashOf(row)` is the address of a row's details. Returns the number of
     pages. */
  catalog.showPage = (table, rows, page, hashOf) => {
    const body = document.createElement("tbody");
    for (const row of rows.slice(page * PAGE, (page + 1) * PAGE)) body.append(line(row, hashOf(row)));
    if (!rows.length) {
      const cell = body.insertRow().insertCell();
      cell.colSpan = COLUMNS.length;
      cell.textContent = "No architecture is like that: take a filter away.";
    }
    table.tBodies[0].replaceWith(body);
    return Math.max(1, Math.ceil(rows.length / PAGE));
  };

  catalog.pageOf = (place) => Math.floor(place / PAGE);

  function line(row, hash) {
    const tr = document.createElement("tr");
    for (const column of COLUMNS) {
      const cell = document.createElement(column.name === "name" ? "th" : "td");
      cell.dataset.column = column.name ?? "strides";
      if (column.number) cell.className = "catalog-number";
      if (column.name === "name") {
        cell.scope = "row";
        cell.append(Object.assign(document.createElement("a"), { href: hash, textContent: row.name }));
        if (row.library !== "timm") {
          cell.append(Object.assign(document.createElement("span"), { className: "catalog-library", textContent: row.library }));
        }
      } else cell.textContent = column.text ? column.text(row) : row[column.name];
      tr.append(cell);
    }
    return tr;
  }
})();
