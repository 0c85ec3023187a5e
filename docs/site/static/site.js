// Embedded pages are told whether the site is light or dark, as the reader may have chosen otherwise than the system.
document.addEventListener("DOMContentLoaded", () => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => {
    const chosen = document.body.dataset.theme;
    return chosen === "light" || chosen === "dark" ? chosen : system.matches ? "dark" : "light";
  };
  const tell = frame => frame.contentWindow.postMessage(theme(), "*");
  const frames = [...document.querySelectorAll("iframe.explained")];
  for (const frame of frames) frame.addEventListener("load", () => tell(frame));
  const all = () => frames.forEach(tell);
  system.addEventListener("change", all);
  new MutationObserver(all).observe(document.body, { attributeFilter: ["data-theme"] });
});
