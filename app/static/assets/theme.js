// The colours that were chosen last, set before anything is painted; therefore no module. "auto" is the system's.
{
  const KEY = "beexformer-theme";
  const stored = () => {
    try {
      return localStorage.getItem(KEY) ?? "auto";
    } catch {
      return "auto"; // storage may be forbidden
    }
  };
  const show = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  };
  show(stored());
  document.addEventListener("DOMContentLoaded", () => {
    const choice = document.getElementById("theme");
    const chosen = choice.querySelector(`input[value=${CSS.escape(stored())}]`);
    if (chosen) chosen.checked = true;
    choice.addEventListener("change", ({ target }) => {
      show(target.value);
      try {
        localStorage.setItem(KEY, target.value);
      } catch {
        // it holds until the page is left
      }
      dispatchEvent(new Event("themechange"));
    });
  });
}
