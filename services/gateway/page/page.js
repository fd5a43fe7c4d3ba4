"use strict";
(() => {
  const part = document.getElementById("part");

  // The part that changes is fetched again when the run has changed; the gateway holds the question until then.
  const watch = async () => {
    for (let pause = 1000; ;) {
      const at = part.querySelector("[data-seq]");
      if (!at || at.hasAttribute("data-ended")) return;
      try {
        const answer = await fetch(at.dataset.part + "&after=" + at.dataset.seq);
        if (!answer.ok) throw new Error(answer.status);
        const next = document.createElement("div");
        next.innerHTML = await answer.text();
        if (next.querySelector("[data-seq]").dataset.seq !== at.dataset.seq) part.replaceChildren(...next.childNodes);
        pause = 1000;
      } catch {
        await new Promise((resolve) => setTimeout(resolve, pause));
        pause = Math.min(pause * 2, 30000);
      }
    }
  };

  // Times that go on are counted here between two answers.
  const human = (ms) => {
    const s = Math.max(0, Math.floor(ms / 1000));
    const two = (n) => String(n).padStart(2, "0");
    if (s < 60) return s + "s";
    if (s < 3600) return Math.floor(s / 60) + "m" + two(s % 60) + "s";
    return Math.floor(s / 3600) + "h" + two(Math.floor(s / 60) % 60) + "m";
  };
  setInterval(() => {
    for (const e of part.querySelectorAll("[data-since]")) e.textContent = human(Date.now() - Date.parse(e.dataset.since));
  }, 1000);

  // A log is read when it is opened, and followed while its stage goes on.
  const follow = async (details) => {
    const pre = details.querySelector("pre");
    const stop = new AbortController();
    details.addEventListener("toggle", () => { if (!details.open) stop.abort(); }, { once: true });
    pre.textContent = "";
    try {
      const answer = await fetch(details.dataset.log + "&follow=1", { signal: stop.signal });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        const below = pre.scrollHeight - pre.scrollTop - pre.clientHeight < 40;
        pre.append(value);
        if (below) pre.scrollTop = pre.scrollHeight;
      }
    } catch (e) {
      if (e.name !== "AbortError") pre.append("\n(the rest could not be read; open it again)");
    }
  };
  for (const details of document.querySelectorAll("details[data-log]")) {
    details.addEventListener("toggle", () => { if (details.open) follow(details); });
  }

  watch();
})();
