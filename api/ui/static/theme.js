// In the head, before anything is painted: the colours that were chosen in this browser, else those of the system.
"use strict";
try {
  const chosen = localStorage.getItem("consilium-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch { /* storage is switched off: the system decides */ }
