// Light or dark, before anything is drawn: what was chosen here, else what the system prefers.
(() => {
  const chosen = localStorage.getItem("theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
