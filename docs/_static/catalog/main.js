/* The page: form, table and details follow the query, and the address keeps it. */
(() => {
  "use strict";
  const catalog = window.detrexCatalog;
  const root = document.getElementById("catalog");
  const find = (selector) => root.querySelector(selector);
  const [form, table, dialog, pages] = ["form", ".catalog-table", "dialog", ".catalog-pages"].map(find);
  let query = catalog.queryOf(location.hash);
  let found = [];
  let page = 0;

  catalog.prepareForm(form);
  catalog.makeHead(table, (name) => change({ ...query, sort: query.sort === name ? `-${name}` : name }));
  catalog.copies(find(".catalog-command button"), () => find(".catalog-command code").textContent);
  catalog.copies(find(".catalog-copy-link"), () => location.href);
  catalog.fillForm(form, query);
  root.hidden = false;
  show();
  showDetail();

  form.addEventListener("input", () => change(catalog.readForm(form, query)));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    change({ ...catalog.emptyQuery(), sort: query.sort });
    catalog.fillForm(form, query);
    form.elements.q.focus();
  });
  pages.addEventListener("click", (event) => {
    const step = Number(event.target.dataset.step);
    if (step) turn(page + step);
  });
  table.addEventListener("click", (event) => {
    const line = event.target.closest("tbody tr");
    if (line && !event.target.closest("a") && !String(getSelection())) line.querySelector("a")?.click();
  });
  root.addEventListener("keydown", move);
  dialog.addEventListener("close", () => {
    const key = query.show;
    query = { ...query, show: "" };
    keep();
    linkOf(key)?.focus();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside the panel
  });
  window.addEventListener("hashchange", () => {
    query = catalog.queryOf(location.hash);
    catalog.fillForm(form, query);
    show();
    showDetail();
  });

  function change(changed) {
    query = changed;
    keep();
    show();
  }

  function keep() {
    const hash = catalog.hashOf(query);
    if (hash !== location.hash) history.replaceState(null, "", hash || location.pathname + location.search);
  }

  function show() {
    found = catalog.search(query);
    const place = found.findIndex((row) => catalog.keyOf(row) === query.show);
    catalog.markSorted(table, query.sort);
    find(".catalog-count").textContent = `${found.length.toLocaleString("en")} of ${catalog.rows.length.toLocaleString("en")} architectures`;
    find(".catalog-command code").textContent = catalog.commandOf(query);
    turn(catalog.pageOf(Math.max(place, 0)));
  }

  function turn(to) {
    page = to;
    const count = catalog.showPage(table, found, page, (row) => catalog.hashOf({ ...query, show: catalog.keyOf(row) }));
    pages.hidden = count === 1;
    pages.querySelector("span").textContent = `Page ${page + 1} of ${count}`;
    pages.querySelector("[data-step='-1']").disabled = page === 0;
    pages.querySelector("[data-step='1']").disabled = page + 1 === count;
  }

  function showDetail() {
    const row = catalog.rows.find((each) => catalog.keyOf(each) === query.show);
    if (row) catalog.openDetail(dialog, row, step);
    else if (dialog.open) dialog.close();
  }

  /* Go on to another row of what was found. */
  function step(by) {
    const place = found.findIndex((row) => catalog.keyOf(row) === query.show);
    const next = found[place + by];
    if (place < 0 || !next) return;
    query = { ...query, show: catalog.keyOf(next) };
    keep();
    if (catalog.pageOf(place + by) !== page) turn(catalog.pageOf(place + by));
    showDetail();
  }

  const links = () => [...table.querySelectorAll("tbody a")];
  const linkOf = (key) => links().find((link) => catalog.queryOf(link.hash).show === key);

  function move(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (dialog.open) {
      if (event.key === "Escape") event.stopPropagation(); // Sphinx keeps the key from closing it
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) step(by);
      return;
    }
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const place = links().indexOf(document.activeElement);
    if (!by || (place < 0 && document.activeElement !== form.elements.q)) return;
    event.preventDefault();
    (links()[place + by] ?? (place + by < 0 ? form.elements.q : null))?.focus();
  }
})();
