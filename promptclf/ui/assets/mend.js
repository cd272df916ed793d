// What gradio's components lack: that screen readers are told whether a fold is open, that a button is called what
// stands on it and a group what stands above it; that the arrow keys go through choices of which one holds (each has
// a name of its own, and so is alone to the browser); and that a dropdown closes when it is left with the Tab key.
() => {
  const mend = () => {
    for (const button of document.querySelectorAll("button.label-wrap")) {
      const open = String(button.classList.contains("open"));
      if (button.getAttribute("aria-expanded") !== open) button.setAttribute("aria-expanded", open);
    }
    for (const button of document.querySelectorAll("button.upload-container[aria-label]")) {
      button.removeAttribute("aria-label");
    }
    for (const group of document.querySelectorAll("fieldset")) {
      const words = group.querySelector("[data-testid=block-info]")?.textContent.trim() ?? "";
      if (words && group.getAttribute("aria-label") !== words) group.setAttribute("aria-label", words);
      const [first, ...others] = group.querySelectorAll("input[type=radio]");
      for (const other of others) if (other.name !== first.name) other.name = first.name;
    }
  };
  new MutationObserver(mend).observe(document.body, {
    childList: true,
    subtree: true,
    attributes: true,
    attributeFilter: ["class", "aria-label"],
  });
  mend();
  document.addEventListener("focusout", ({ target }) => {
    // The key opens it again after it has closed; it listens to "blur", which this repeats.
    setTimeout(() => {
      const list = document.getElementById(target.getAttribute("aria-controls") ?? "");
      if (list && target !== document.activeElement) target.dispatchEvent(new FocusEvent("blur"));
    }, 100);
  });
};
