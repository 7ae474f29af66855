/* The form of filters: what it says, and a query put into it. */
(() => {
  "use strict";
  const catalog = window.detrexCatalog;
  const NUMBERS = ["min_params", "max_params", "min_gflops", "max_gflops"];
  const TEXTS = ["q", "norm", "kind", "library", "licence", "tag"];
  const FLAGS = ["any_size", "pretrained"];

  /* Read the form; `query` gives what stands elsewhere (the order, what is shown). */
  catalog.readForm = (form, query) => {
    const read = { ...catalog.emptyQuery(), sort: query.sort, show: query.show };
    for (const name of TEXTS) read[name] = form.elements[name].value;
    for (const name of NUMBERS) {
      const value = form.elements[name].valueAsNumber;
      if (Number.isFinite(value)) read[name] = value;
    }
    read.strides = boxes(form).filter((box) => box.checked).map((box) => Number(box.value));
    for (const name of FLAGS) read[name] = form.elements[name].checked;
    return read;
  };

  /* Put a query into the form. */
  catalog.fillForm = (form, query) => {
    for (const name of [...TEXTS, ...NUMBERS]) form.elements[name].value = query[name] ?? "";
    for (const stride of query.strides) addStride(form, stride);
    for (const box of boxes(form)) box.checked = query.strides.includes(Number(box.value));
    for (const name of FLAGS) form.elements[name].checked = query[name];
    const more = form.querySelector("details");
    const hidden = [...more.querySelectorAll("input, select")];
    if (hidden.some((input) => (input.type === "checkbox" ? input.checked : input.value))) more.open = true;
  };

  /* Offer the strides, licences and tags that there are. */
  catalog.prepareForm = (form) => {
    const counts = new Map();
    for (const row of catalog.rows) {
      for (const stride of row.strides) counts.set(stride, (counts.get(stride) ?? 0) + 1);
    }
    const common = [...counts.keys()].filter((stride) => counts.get(stride) > 40);
    for (const stride of common.sort((a, b) => a - b)) addStride(form, stride);
    offer("catalog-licences", catalog.rows.map((row) => row.licence));
    offer("catalog-tags", catalog.rows.flatMap((row) => row.tags));
  };

  const boxes = (form) => [...form.querySelectorAll("input[name=strides]")];

  function addStride(form, stride) {
    if (boxes(form).some((box) => Number(box.value) === stride)) return;
    const label = document.createElement("label");
    label.className = "catalog-chip";
    const box = Object.assign(document.createElement("input"), {
      type: "checkbox",
      name: "strides",
      value: String(stride),
    });
    label.append(box, ` ${stride}`);
    form.querySelector(".catalog-strides").append(label);
  }

  function offer(id, values) {
    const list = document.getElementById(id);
    for (const value of [...new Set(values)].filter(Boolean).sort()) {
      list.append(Object.assign(document.createElement("option"), { value }));
    }
  }
})();
