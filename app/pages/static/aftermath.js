// Everything works without this file. It names the viewer's time zone, sends filters when they change,
// keeps what is open fresh, and closes popovers. No library, no build.
"use strict";
(() => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  for (const field of document.querySelectorAll("input[data-zone]"))
    if (zone && field.type === "hidden") field.value = zone;

  for (const form of document.querySelectorAll("form[data-auto]")) {
    form.addEventListener("change", () => form.requestSubmit());
    form.querySelector("button")?.classList.add("sr");
  }

  const edits = [...document.querySelectorAll("details.edit")];
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape")
      for (const d of edits)
        if (d.open) {
          d.open = false;
          d.querySelector("summary").focus();
        }
  });
  document.addEventListener("click", (event) => {
    for (const d of edits) if (d.open && !d.contains(event.target)) d.open = false;
  });

  const live = [...document.querySelectorAll("[data-live]")];
  const readAt = document.querySelector("[data-read-at]")?.parentElement;
  if (live.length)
    setInterval(async () => {
      if (document.hidden || live.some((part) => part.contains(document.activeElement))) return;
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
      // What the page shows is as old as the time in the footer.
      readAt?.classList.toggle("stale", !answer?.ok || answer.redirected);
      if (!answer?.ok || answer.redirected) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of live) {
        const other = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
        if (other && other.innerHTML !== part.innerHTML) part.replaceChildren(...other.childNodes);
      }
      const at = fresh.querySelector("[data-read-at]");
      if (at) readAt?.querySelector("[data-read-at]").replaceWith(at);
      document.title = fresh.title;
    }, 30000);
})();
