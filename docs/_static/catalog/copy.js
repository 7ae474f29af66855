/* Buttons that copy a text. */
(() => {
  "use strict";
  const catalog = window.detrexCatalog;

  /* Make `button` copy what `text()` gives, and say that it did. */
  catalog.copies = (button, text) => {
    const label = button.textContent;
    button.addEventListener("click", async () => {
      button.textContent = (await copied(text())) ? "Copied" : "Press Ctrl+C";
      setTimeout(() => (button.textContent = label), 2000);
    });
  };

  async function copied(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return copiedByHand(text); // a page from http:// or from a file has no clipboard in some browsers
    }
  }

  function copiedByHand(text) {
    const area = document.createElement("textarea");
    area.value = text;
    area.setAttribute("aria-hidden", "true");
    area.className = "catalog-offscreen";
    const focused = document.activeElement;
    (focused.closest("dialog") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    focused.focus();
    return done;
  }
})();
