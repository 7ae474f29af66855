/* The data as the page reads them: rows of the table, and descriptions as `detrex backbones show
   NAME --json` prints them. */
(() => {
  "use strict";
  const catalog = window.detrexCatalog;
  const NAME = "\u2400"; // stands for an architecture's name within its config

  const cell = (column, row) => (Array.isArray(column) ? column[row] : column.of[column.at[row]]);
  const record = (columns, row) =>
    Object.fromEntries(Object.keys(columns).map((name) => [name, cell(columns[name], row)]));
  const length = (column) => (Array.isArray(column) ? column : column.at).length;
  const all = (columns) =>
    columns.name ? Array.from({ length: length(columns.name) }, (_, row) => record(columns, row)) : [];

  catalog.keyOf = (row) => `${row.library}/${row.name}`;
  catalog.rows = all(catalog.table.columns);
  for (const row of catalog.rows) {
    row.lowerTags = row.tags.map((tag) => tag.toLowerCase());
    row.config = row.config.replace(NAME, row.name);
  }

  /* The address of this folder, wherever the page lies. */
  const folder = new URL(".", document.currentScript.src);

  let byKey = null;

  /* Resolves to the description of a row, or to null where the package has none. */
  catalog.describe = async (row) => {
    byKey ??= load().then(() => {
      const facts = all(catalog.descriptions);
      return new Map(facts.map((each) => [catalog.keyOf(each), each]));
    });
    const facts = (await byKey).get(catalog.keyOf(row));
    return facts ? { ...facts, config: row.config } : null;
  };

  function load() {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL("descriptions.js", folder);
      script.onload = resolve;
      script.onerror = () => reject(new Error("descriptions.js cannot be read"));
      document.head.append(script);
    });
  }
})();
