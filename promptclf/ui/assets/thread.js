// Runs once in the conversation's element, whose content is replaced with every answer. Tells Python which
// button was pressed, keeps the focus and a chosen label where they were, and has answers read aloud.
const live = document.createElement("div");
live.className = "pc-live";
live.setAttribute("role", "status");
element.parentElement.append(live);

const picks = new Map();
let pressed = null;
let state = null;

async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
  } catch {
    // Browsers have a clipboard for pages from this machine or over HTTPS only.
    const box = Object.assign(document.createElement("textarea"), { value: button.dataset.copy });
    button.after(box);
    box.select();
    document.execCommand("copy");
    box.remove();
    button.focus();
  }
  const words = button.textContent;
  if (words === button.dataset.done) return;
  button.textContent = live.textContent = button.dataset.done;
  setTimeout(() => (button.textContent = words), 1500);
}

element.addEventListener("change", (event) => {
  if (event.target.matches("select")) picks.set(event.target.id, event.target.value);
});

element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-act]");
  if (!button) return;
  const { act, turn } = button.dataset;
  if (act === "copy") return copy(button);
  pressed = turn;
  const pick = button.closest("section")?.querySelector("select");
  trigger("click", { act, turn: Number(turn), label: pick ? pick.value : "" });
});

watch("value", () => {
  const thread = element.querySelector("[data-state]");
  for (const [id, value] of picks) {
    const pick = document.getElementById(id);
    if (pick) pick.value = value;
  }
  if (pressed && !element.contains(document.activeElement) && document.activeElement === document.body) {
    const own = `[data-turn="${pressed}"]`;
    const button = element.querySelector(`section ${own}, ${own}[aria-expanded="true"], ${own}`);
    button?.focus({ preventScroll: true });
  }
  if (thread && thread.dataset.state !== state) thread.lastElementChild.scrollIntoView({ block: "nearest" });
  state = thread?.dataset.state;
  const words = thread?.dataset.live ?? "";
  if (live.textContent !== words) live.textContent = words;
});
