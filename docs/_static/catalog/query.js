/* What is searched for: read from the address, written to it and to a command line, and held
   against a row. `Query` of detrex.catalog.table is the same in Python. */
(() => {
  "use strict";
  const catalog = window.detrexCatalog;

  /* Fields of a query: in the address, in the form (by the same name) and on the command line. */
  const TEXTS = { norm: "--norm", kind: "--kind", library: "--library", licence: "--licence", tag: "--tag" };
  const NUMBERS = {
    min_params: ["--min-params", "M"],
    max_params: ["--max-params", "M"],
    min_gflops: ["--min-gflops", ""],
    max_gflops: ["--max-gflops", ""],
  };
  const FLAGS = { any_size: "--any-size", pretrained: "--pretrained" };
  const SORTS = ["name", "params", "gflops", "kind", "norm", "sizes", "library", "licence"];
  const PREFIX = "#find?"; // anchors of the page stay anchors

  catalog.emptyQuery = () => ({ q: "", strides: [], any_size: false, pretrained: false, sort: "params", show: "" });

  /* A query from a hash such as "#find?q=vit&strides=8,16&max_params=40&sort=-gflops". Parameters
     are in millions. What cannot be read is left out. */
  catalog.queryOf = (hash) => {
    const query = catalog.emptyQuery();
    if (!hash.startsWith(PREFIX)) return query;
    const values = new URLSearchParams(hash.slice(PREFIX.length));
    for (const name of ["q", "show", ...Object.keys(TEXTS)]) {
      if (values.get(name)) query[name] = values.get(name);
    }
    for (const name of Object.keys(NUMBERS)) {
      const text = values.get(name);
      if (text && Number.isFinite(Number(text))) query[name] = Number(text);
    }
    const strides = (values.get("strides") ?? "").split(",").map(Number);
    query.strides = strides.filter((stride) => Number.isInteger(stride) && stride > 0);
    for (const name of Object.keys(FLAGS)) query[name] = values.get(name) === "1";
    const sort = values.get("sort") ?? "";
    if (SORTS.includes(sort.replace(/^-/, ""))) query.sort = sort;
    return query;
  };

  /* The hash of a query; it leaves out what is as usual. */
  catalog.hashOf = (query) => {
    const values = new URLSearchParams();
    for (const name of ["q", ...Object.keys(TEXTS), ...Object.keys(NUMBERS)]) {
      if (query[name] !== undefined && query[name] !== "") values.set(name, query[name]);
    }
    if (query.strides.length) values.set("strides", query.strides.join(","));
    for (const name of Object.keys(FLAGS)) if (query[name]) values.set(name, "1");
    if (query.sort !== "params") values.set("sort", query.sort);
    if (query.show) values.set("show", query.show);
    const text = values.toString().replaceAll("%2C", ",").replaceAll("%2F", "/");
    return text ? PREFIX + text : "";
  };

  /* The command that finds the same. */
  catalog.commandOf = (query) => {
    const words = ["detrex backbones"];
    if (query.q.trim()) words.push(quoted(query.q.trim()));
    if (query.strides.length) words.push("--strides", query.strides.join(","));
    for (const [name, [option, unit]] of Object.entries(NUMBERS)) {
      if (query[name] !== undefined) words.push(option, `${query[name]}${unit}`);
    }
    for (const [name, option] of Object.entries(TEXTS)) {
      if (query[name]) words.push(option, quoted(query[name]));
    }
    for (const [name, option] of Object.entries(FLAGS)) if (query[name]) words.push(option);
    const sort = query.sort.replace(/^-/, "");
    if (["name", "gflops"].includes(sort)) words.push("--sort", sort);
    return words.join(" ");
  };

  const quoted = (text) => (/^[\w.,/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

  /* A function that tells whether a row is searched for. */
  catalog.matcherOf = (query) => {
    const tests = [(row) => row.strides.length > 0];
    for (const word of query.q.toLowerCase().split(/\s+/).filter(Boolean)) {
      const fits = nameTest(word);
      tests.push((row) => fits(row.name));
    }
    for (const stride of query.strides) tests.push((row) => row.strides.includes(stride));
    for (const name of ["norm", "kind", "library"]) {
      if (query[name]) tests.push((row) => row[name] === query[name]);
    }
    for (const [name, least, unit] of [["params", true, 1e6], ["params", false, 1e6], ["gflops", true, 1], ["gflops", false, 1]]) {
      const limit = query[`${least ? "min" : "max"}_${name}`];
      if (limit === undefined) continue;
      const value = unit === 1 ? limit : Math.round(limit * unit);
      tests.push(least ? (row) => row[name] >= value : (row) => row[name] <= value);
    }
    if (query.any_size) tests.push((row) => !row.sizes.includes("tiles"));
    if (query.pretrained) tests.push((row) => row.tags.length > 0);
    if (query.licence) {
      const part = query.licence.toLowerCase();
      tests.push((row) => row.licence.toLowerCase().includes(part));
    }
    if (query.tag) {
      const part = query.tag.toLowerCase();
      tests.push((row) => row.lowerTags.some((tag) => tag.includes(part)));
    }
    return (row) => tests.every((test) => test(row));
  };

  /* Rows that match, in the order of the query. Equal ones are by name, whatever the direction. */
  catalog.search = (query) => {
    const name = query.sort.replace(/^-/, "");
    const sign = query.sort.startsWith("-") ? -1 : 1;
    const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    return catalog.rows
      .filter(catalog.matcherOf(query))
      .sort((a, b) => sign * order(a[name], b[name]) || order(a.name, b.name));
  };

  /* A word is a part of the name; with *, ? or [ it is a pattern for the whole name. */
  function nameTest(word) {
    if (!/[*?[]/.test(word)) return (name) => name.includes(word);
    const pattern = word.replace(/\*+|\?|\[(!?)(\]?[^\]]*)\]|[^]/g, (part, not, letters) => {
      if (part[0] === "*") return ".*";
      if (part === "?") return ".";
      if (letters) return `[${not ? "^" : ""}${letters.replace(/[\\\]^[]/g, "\\$&")}]`;
      return part.replace(/[\\^$.|+()[\]{}]/g, "\\$&");
    });
    try {
      const regex = new RegExp(`^(?:${pattern})$`);
      return (name) => regex.test(name);
    } catch {
      return () => false; // a range from a later to an earlier letter
    }
  }
})();
