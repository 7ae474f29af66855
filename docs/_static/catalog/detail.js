/* The details of an architecture, as a dialog. */
(() => {
  "use strict";
  const catalog = window.detrexCatalog;

  /* An element with properties and children; strings become text. */
  function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  const percent = (part, whole) => (whole ? `${Math.round((100 * part) / whole)} %` : "");
  const size = (sides) => sides.join(" × ");
  const list = (numbers) => `(${numbers.map((number) => String(Math.round(number * 1000) / 1000)).join(", ")})`;

  function section(title, ...children) {
    return make("section", {}, make("h3", { textContent: title }), ...children);
  }

  /* Rows are lists of cells; `numbers` are the columns that hold numbers. */
  function grid(label, heads, rows, numbers) {
    const cell = (tag, text, place) =>
      make(tag, { className: numbers.includes(place) ? "catalog-number" : "", scope: tag === "th" ? "col" : "" }, text);
    const head = make("tr", {}, ...heads.map((text, place) => cell("th", text, place)));
    const body = rows.map((row) => make("tr", {}, ...row.map((text, place) => cell("td", text, place))));
    const table = make("table", {}, make("caption", { className: "catalog-offscreen" }, label), make("thead", {}, head), make("tbody", {}, ...body));
    const scroll = make("div", { className: "catalog-scroll", tabIndex: 0 }, table);
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", label);
    return scroll;
  }

  function pairs(entries, className = "") {
    return make("dl", { className }, ...entries.filter(([, text]) => text).map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text))));
  }

  function code(text, label) {
    const button = make("button", { type: "button", textContent: "Copy" });
    button.setAttribute("aria-label", label);
    catalog.copies(button, () => text);
    return make("div", { className: "catalog-code" }, make("pre", { tabIndex: 0 }, make("code", {}, text)), button);
  }

  function summary(row) {
    const facts = [
      ["Library", row.library],
      ["Kind", row.kind],
      ["Strides", row.strides.join(", ")],
      ["Parameters", `${catalog.millions(row.params)} M`],
      ["GFLOPs at 640 × 640", row.gflops.toFixed(1)],
      ["Norm", row.norm],
    ];
    return pairs(facts, "catalog-summary");
  }

  function maps(facts) {
    const rows = facts.features.map((map) => [String(map.source), String(map.channels), String(map.stride), map.layout]);
    return section("Maps of the network", grid("Maps of the network", ["source", "channels", "stride", "layout"], rows, [1, 2]));
  }

  function levels(facts) {
    const rows = facts.levels.map((level) => [level.name, String(level.stride), String(level.channels), String(level.source), level.derivation || "as it is"]);
    const derived = facts.params_derived ? `Deriving them takes ${catalog.millions(facts.params_derived)} M parameters more.` : "";
    return section(
      "Levels for out_strides=(8, 16, 32)",
      grid("Levels", ["name", "stride", "channels", "from", "derived by"], rows, [1, 2]),
      derived ? make("p", {}, derived) : null,
    );
  }

  /* What the table alone says, of an architecture without a description. */
  function strides(row) {
    const rows = row.strides.map((stride, place) => [String(stride), String(row.channels[place])]);
    const sizesOf = row.sizes === "any" ? "any size" : row.sizes.replace(/^x/, "multiples of ");
    return section(
      "Maps of the network",
      grid("Maps of the network", ["stride", "channels of the last map"], rows, [0, 1]),
      make("p", {}, `Images: ${sizesOf}. Levels, freezing and sizes at length are told by the command below, which builds the network.`),
    );
  }

  function sizes(facts) {
    const padding = Object.entries(facts.padding_constraints).map(([name, value]) => `${name}=${value}`);
    const tiles = facts.tiles > 1 ? ` in ${facts.tiles} tiles` : "";
    return section(
      "Sizes",
      make("p", {}, `${facts.input_rule[0].toUpperCase()}${facts.input_rule.slice(1)}.`),
      pairs([
        [`An image of ${size(facts.size)}`, `runs at ${size(facts.fitted_size)}${tiles}: ${facts.gflops.toFixed(1)} G multiply-adds`],
        ["padding_constraints", padding.join(", ")],
      ]),
    );
  }

  function freezing(facts) {
    const rows = Object.entries(facts.frozen_params).map(([at, count]) => [
      at,
      `${(count / 1e6).toFixed(2)} M`,
      percent(count, facts.params),
      make("span", { className: "catalog-bar", style: `--share: ${facts.params ? count / facts.params : 0}` }),
    ]);
    return section(
      "Freezing",
      rows.length
        ? grid("Freezing", ["freeze_at", "parameters frozen", "share", ""], rows, [0, 1, 2])
        : make("p", {}, "The network has no stages that can be frozen one by one."),
    );
  }

  function weights(row) {
    const tags = row.tags.map((tag, place) => make("li", {}, make("code", {}, tag), place ? "" : " (the default)"));
    return section(
      "Weights",
      tags.length ? make("ul", { className: "catalog-tags" }, ...tags) : make("p", {}, "None are published: train it, or bring your own."),
      pairs([
        ["Licence of the default", tags.length ? row.licence || "not stated" : ""],
        ["pixel_mean", `${list(row.mean)} RGB`],
        ["pixel_std", `${list(row.std)} RGB`],
      ]),
    );
  }

  function told(row, facts) {
    const command = `detrex backbones show ${row.name}${twin(row) ? ` --library ${row.library}` : ""}`;
    const config = section("Config", code(row.config, "Copy the config"));
    const body = facts
      ? [config, levels(facts), maps(facts), sizes(facts), freezing(facts), weights(row)]
      : [config, strides(row), weights(row)];
    return [summary(row), ...body, section("In a terminal", code(command, "Copy the command"))];
  }

  const twin = (row) => catalog.rows.some((other) => other.name === row.name && other.library !== row.library);

  /* Fill and open the dialog with a row. `go(step)` is called for the next or previous row. */
  catalog.openDetail = async (dialog, row, go) => {
    const close = make("button", { type: "button", className: "catalog-close", textContent: "Close" });
    close.addEventListener("click", () => dialog.close());
    const steps = [["←", "Previous architecture", -1], ["→", "Next architecture", 1]].map(([textContent, label, step]) => {
      const button = make("button", { type: "button", textContent });
      button.setAttribute("aria-label", label);
      button.addEventListener("click", () => go(step));
      return button;
    });
    const title = make("h2", { id: "catalog-detail-name", tabIndex: -1 }, row.name);
    const body = make("div", { className: "catalog-detail-body" }, make("p", {}, "Reading…"));
    dialog.replaceChildren(make("header", {}, title, ...steps, close), body);
    dialog.dataset.key = catalog.keyOf(row);
    if (!dialog.open) dialog.showModal();
    title.focus();
    let content;
    try {
      content = told(row, await catalog.describe(row));
    } catch (error) {
      content = [make("p", {}, `The descriptions cannot be read (${error.message}).`)];
    }
    if (dialog.dataset.key === catalog.keyOf(row)) body.replaceChildren(...content);
    body.scrollTop = 0;
  };
})();
