"use strict";
// Everything is readable without this: it sorts tables, and names the values under the pointer.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") !== "descending";
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const isNumber = [...body.rows].every((row) => "value" in row.cells[column].dataset);
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (!isNumber) return falling ? y.localeCompare(x) : x.localeCompare(y);
        if (x === "" || y === "") return (x === "") - (y === "");
        return falling ? y - x : x - y;
      });
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      body.append(...rows);
    });
  });
}

const tip = document.getElementById("tip");
for (const svg of document.querySelectorAll("svg")) {
  const dots = [...svg.querySelectorAll("circle")];
  let near = [];
  const leave = () => {
    near.forEach((dot) => dot.classList.remove("near"));
    near = [];
    tip.hidden = true;
  };
  svg.addEventListener("pointermove", (event) => {
    leave();
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const away = (dot) => Math.abs(dot.cx.baseVal.value - x);
    const least = Math.min(...dots.map(away));
    near = dots.filter((dot) => away(dot) < least + 0.05);
    near.forEach((dot) => dot.classList.add("near"));
    tip.textContent = near.map((dot) => dot.textContent).join("\n");
    tip.hidden = false;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(4, event.clientY - tip.offsetHeight - 12)}px`;
  });
  svg.addEventListener("pointerleave", leave);
}

addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});
