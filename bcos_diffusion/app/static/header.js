element.querySelector(".theme").addEventListener("click", () => {
  document.body.classList.toggle("dark");
  window.dispatchEvent(new Event("bcos:theme"));
});
